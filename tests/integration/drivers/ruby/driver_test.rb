# The pg library in its ways (by name, in pipelines, row by row, COPY) and ActiveRecord, which prepares every
# query under a name, frees the oldest by DEALLOCATE and takes an advisory lock for a migration.
# ruby driver_test.rb PORT; prints ok.
require 'pg'
require 'active_record'

PORT = ARGV[0].to_i

def check(right, what)
  raise what unless right
end

def dial(**more)
  PG.connect(host: '127.0.0.1', port: PORT, dbname: 'app', user: 'postgres', **more)
end

def state_of
  yield
  'none'
rescue PG::Error => e
  e.result ? e.result.error_field(PG::Result::PG_DIAG_SQLSTATE) : e.class.name
end

def statements
  connections = Array.new(6) { dial }
  connections.each_with_index { |one, n| one.prepare('mine', "SELECT $1::int + #{n}") }
  20.times do |turn|
    connections.each_with_index do |one, n|
      check(one.exec_prepared('mine', [turn]).getvalue(0, 0) == (turn + n).to_s, 'exec_prepared')
    end
  end
  check(connections[0].describe_prepared('mine').paramtype(0) == 23, 'describe_prepared')
  check(state_of { connections[0].exec_prepared('mine', []) } == '08P01', 'a parameter missing')
  check(state_of { connections[0].prepare('mine', 'SELECT 1') } == '42P05', 'a name twice')
  connections[0].exec('DEALLOCATE mine')
  check(state_of { connections[0].exec_prepared('mine', [1]) } == '26000', 'a name that was freed')
  connections[0].exec('DISCARD ALL')
  connections[0].prepare('mine', 'SELECT 1')
  connections.each(&:close)
end

def pipelines
  one = dial
  one.enter_pipeline_mode
  one.send_prepare('p', 'SELECT $1::int')
  20.times { |n| one.send_query_prepared('p', [n]) }
  one.send_query_params('SELECT 1/$1::int', [0])
  one.send_query_prepared('p', [21])
  one.pipeline_sync
  one.send_query_params('DEALLOCATE p', [])
  one.send_query_params('SELECT $1::text', ['after'])
  one.pipeline_sync
  seen = []
  while seen.count(:sync) < 2
    result = one.get_result
    next if result.nil?

    case result.result_status
    when PG::PGRES_PIPELINE_SYNC then seen << :sync
    when PG::PGRES_PIPELINE_ABORTED then seen << :aborted
    when PG::PGRES_TUPLES_OK then seen << result.getvalue(0, 0)
    when PG::PGRES_COMMAND_OK then seen << :done
    else seen << result.error_field(PG::Result::PG_DIAG_SQLSTATE)
    end
  end
  one.exit_pipeline_mode
  check(seen == [:done, *(0..19).map(&:to_s), '22012', :aborted, :sync, :done, 'after', :sync], seen.inspect)
  one.close
end

def streams
  one = dial
  one.transaction do
    one.exec('CREATE TEMP TABLE t (n int, s text) ON COMMIT DROP')
    one.copy_data('COPY t FROM STDIN') { 1000.times { |n| one.put_copy_data("#{n}\tx\n") } }
    lines = []
    one.copy_data('COPY (SELECT n FROM t WHERE n < 3) TO STDOUT') do
      while (line = one.get_copy_data)
        lines << line
      end
    end
    check(lines == %W[0\n 1\n 2\n], 'COPY TO')
    one.send_query('SELECT n FROM t ORDER BY n')
    one.set_single_row_mode
    check(one.get_result.stream_each.map { |row| row['n'].to_i } == (0..999).to_a, 'row by row')
    one.get_result
  end
  one.close
end

class Thing < ActiveRecord::Base
end

def one_after_another(number)
  10.times do |turn|
    Thing.transaction do
      thing = Thing.create!(n: number * 100 + turn, name: 'a')
      begin
        Thing.transaction(requires_new: true) { Thing.where('1 / (n - n) = ?', 1).to_a }
      rescue ActiveRecord::StatementInvalid
        thing.update!(name: 'b')
      end
    end
  end
  # More texts than a connection keeps.
  40.times do |n|
    found = Thing.where(n: number * 100).limit(n + 1).order(*[:id] * (n % 30 + 1)).first
    check(found.name == 'b', 'a query')
  end
end

def records
  ActiveRecord::Base.establish_connection(adapter: 'postgresql', host: '127.0.0.1', port: PORT, database: 'app',
                                          username: 'postgres', pool: 8, statement_limit: 20)
  schema = ActiveRecord::Base.connection
  schema.create_table(:things, force: true) do |t|
    t.integer :n
    t.string :name
    t.timestamps
  end
  threads = Array.new(7) do |number|
    Thread.new { ActiveRecord::Base.connection_pool.with_connection { one_after_another(number) } }
  end
  threads.each(&:join)
  check(Thing.where(name: 'b').count == 70, 'records')
  schema.add_column(:things, :added, :integer)
  Thing.reset_column_information
  check(Thing.order(:n).first.added.nil?, 'a column that was added')
ensure
  schema&.drop_table(:things, if_exists: true)
  ActiveRecord::Base.connection_handler.clear_all_connections!
end

statements
pipelines
streams
records
puts 'ok'
