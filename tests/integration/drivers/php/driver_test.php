<?php
// PDO prepares by protocol under names of its own and frees them with DEALLOCATE as SQL; the pgsql functions take names
// from the program. Both through one port: php driver_test.php PORT. Prints ok.
function check(bool $right, string $what): void {
    if (!$right) {
        throw new RuntimeException($what);
    }
}

/** The SQLSTATE of the PDOException that $work throws. */
function code_of(callable $work): string {
    try {
        $work();
    } catch (PDOException $error) {
        return $error->errorInfo[0];
    }
    return 'none';
}

function connect(int $port): PDO {
    return new PDO("pgsql:host=127.0.0.1;port=$port;dbname=app", 'postgres', '',
        [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION, PDO::ATTR_DEFAULT_FETCH_MODE => PDO::FETCH_NUM]);
}

function statements(int $port): void {
    // More connections than servers, and more statements than a server keeps: each is freed when it goes out of scope.
    $connections = array_map(fn() => connect($port), range(0, 5));
    for ($turn = 0; $turn < 30; $turn++) {
        foreach ($connections as $n => $one) {
            $statement = $one->prepare("SELECT ?::int + $turn, ?::text");
            for ($again = 0; $again < 2; $again++) {
                $statement->execute([$n, "token $n"]);
                check($statement->fetch() == [$n + $turn, "token $n"], 'a prepared statement');
            }
            $statement = null;
        }
    }
    $kept = [];
    foreach (range(0, 249) as $n) {
        $kept[$n] = $connections[0]->prepare("SELECT $n + ?::int");
        $kept[$n]->execute([1]);
    }
    foreach ([0, 100, 249] as $n) {
        $kept[$n]->execute([2]);
        check($kept[$n]->fetch() == [$n + 2], 'one of many statements');
    }
}

function transactions(int $port): void {
    $one = connect($port);
    $one->beginTransaction();
    $one->exec('CREATE TEMP TABLE t (n int, s text) ON COMMIT DROP');
    $insert = $one->prepare('INSERT INTO t VALUES (:n, :s)');
    foreach (range(1, 50) as $n) {
        $insert->execute(['n' => $n, 's' => str_repeat('x', $n)]);
    }
    $one->exec('SAVEPOINT s');
    check(code_of(fn() => $one->prepare('SELECT 1/?::int')->execute([0])) === '22012', 'division by zero');
    check(code_of(fn() => $one->prepare('SELECT nothing')->execute()) === '25P02', 'a transaction that failed');
    $insert = null;  // its DEALLOCATE is refused here
    $one->exec('ROLLBACK TO s');
    check($one->query('SELECT count(*), sum(n) FROM t')->fetch() == [50, 1275], 'what was inserted');
    $cursor = $one->prepare('SELECT n FROM t ORDER BY n', [PDO::ATTR_CURSOR => PDO::CURSOR_SCROLL]);
    $cursor->execute();
    check($cursor->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_LAST) == [50], 'the last row of a cursor');
    check($cursor->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_PRIOR) == [49], 'the row before');
    $cursor = null;
    check($one->pgsqlCopyFromArray('t', ["100\ta", "101\tb"]), 'COPY FROM');
    check(count($one->pgsqlCopyToArray('t')) === 52, 'COPY TO');
    $oid = $one->pgsqlLOBCreate();
    $stream = $one->pgsqlLOBOpen($oid, 'wb');
    fwrite($stream, str_repeat('large', 20000));
    $stream = $one->pgsqlLOBOpen($oid, 'rb');
    check(stream_get_contents($stream) === str_repeat('large', 20000), 'a large object');
    $one->pgsqlLOBUnlink($oid);
    $one->commit();
    $emulated = connect($port);
    $emulated->setAttribute(PDO::ATTR_EMULATE_PREPARES, true);
    $statement = $emulated->prepare('SELECT ?, ?');
    $statement->execute(["it's", 'ä']);
    check($statement->fetch() == ["it's", 'ä'], 'an emulated statement');
}

function pgsql(int $port): void {
    $one = pg_connect("host=127.0.0.1 port=$port dbname=app user=postgres options='-c TimeZone=Asia/Tokyo'");
    pg_prepare($one, 'mine', 'SELECT $1::int, current_setting(\'TimeZone\')');
    foreach (range(0, 9) as $n) {
        check(pg_fetch_row(pg_execute($one, 'mine', [$n])) === [(string) $n, 'Asia/Tokyo'], 'pg_execute');
    }
    pg_query($one, 'DEALLOCATE mine');
    check(@pg_execute($one, 'mine', [1]) === false, 'a statement that was freed');
    check(str_contains(pg_last_error($one), 'prepared statement "mine" does not exist'), pg_last_error($one));
    pg_prepare($one, 'mine', 'SELECT $1::text');
    check(@pg_execute($one, 'mine', []) === false, 'a parameter missing');
    check(str_contains(pg_last_error($one), 'prepared statement "mine" requires 1'), pg_last_error($one));
    check(pg_fetch_row(pg_execute($one, 'mine', ['x'])) === ['x'], 'the name again');
    pg_set_client_encoding($one, 'LATIN1');
    check(pg_fetch_row(pg_query_params($one, 'SELECT $1', ["\xe4"])) === ["\xe4"], 'LATIN1');
    pg_close($one);
}

$port = (int) $argv[1];
statements($port);
transactions($port);
pgsql($port);
echo "ok\n";
