# DBD::Pg prepares by protocol under names of its own and frees them with DEALLOCATE as SQL.
# perl driver_test.pl PORT; prints ok.
use strict;
use warnings;
use DBI;
use DBD::Pg qw(:pg_types);

my ($port) = @ARGV;

sub check {
    my ($right, $what) = @_;
    die "$what\n" unless $right;
}

sub dial {
    my ($more) = @_;
    return DBI->connect("dbi:Pg:host=127.0.0.1;port=$port;dbname=app", 'postgres', '',
        {RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1, pg_server_prepare => 1, %{$more // {}}});
}

sub row {
    my ($statement, @values) = @_;
    $statement->execute(@values);
    my @row = $statement->fetchrow_array;
    $statement->finish;
    return join ',', map { $_ // 'null' } @row;
}

sub statements {
    my @connections = map { dial({pg_switch_prepared => 1}) } 0 .. 5;
    for my $turn (0 .. 19) {
        for my $n (0 .. 5) {
            my $statement = $connections[$n]->prepare("SELECT ?::int + $turn, ?::text");
            check(row($statement, $n, "token $n") eq ($n + $turn) . ",token $n", 'a prepared statement') for 0 .. 1;
        }
    }
    my @kept = map { $connections[0]->prepare("SELECT $_ + ?::int") } 0 .. 229;
    check(row($kept[$_], 1) eq $_ + 1, 'one of many statements') for 0 .. 229, 0, 100;
}

sub transactions {
    my $one = dial({AutoCommit => 0});
    my @notices;
    local $SIG{__WARN__} = sub { push @notices, @_ };
    $one->do('CREATE TEMP TABLE t (n int, s text) ON COMMIT DROP');
    my $insert = $one->prepare('INSERT INTO t VALUES (?, ?)');
    $insert->execute_array({}, [1 .. 50], 'x');
    $one->pg_savepoint('s');
    check(!eval { row($one->prepare('SELECT 1/?::int'), 0); 1 } && $one->state eq '22012', 'division by zero');
    $one->pg_rollback_to('s');
    check($one->selectrow_array('SELECT sum(n) FROM t') == 1275, 'what was inserted');
    $one->do('COPY t FROM STDIN');
    $one->pg_putcopydata("$_\tcopied\n") for 100 .. 199;
    $one->pg_putcopyend;
    $one->do('COPY (SELECT n FROM t WHERE n < 4 ORDER BY n) TO STDOUT');
    my ($line, $copied) = ('', '');
    $copied .= $line while $one->pg_getcopydata($line) >= 0;
    check($copied eq "1\n2\n3\n", 'COPY TO');
    my $bytes = $one->prepare('SELECT ?::bytea');
    $bytes->bind_param(1, join('', map { chr } 0 .. 255), {pg_type => PG_BYTEA});
    check(row($bytes) eq join('', map { chr } 0 .. 255), 'all bytes');
    $one->do('DECLARE c CURSOR FOR SELECT n FROM t ORDER BY n');
    check(@{$one->selectall_arrayref('FETCH 7 FROM c')} == 7, 'a cursor') for 1 .. 3;
    $one->do("DO \$\$ BEGIN RAISE WARNING 'look'; END \$\$");
    $one->commit;
    check(!eval { $one->selectall_arrayref('SELECT * FROM t'); 1 } && $one->state eq '42P01', 'the table is gone');
    $one->rollback;
}

statements();
transactions();
print "ok\n";
