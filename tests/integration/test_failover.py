"""Lost, frozen, promoted and returning hosts under load. Every transfer of the ledger is written down by its client and
looked for afterwards; replication is synchronous where nothing may be lost."""

import os
import random
import time

import pytest

import routing
from harness import PATIENCE, wait_until
from ledger import Ledger
from routing import hosts, pools, routes, wait_routed, where
from wire import SYNC, bind, describe, execute, parse, query

pytestmark = pytest.mark.pgweir

CRASHED = ("08006", "server conn crashed?")
WRITE = "INSERT INTO notes VALUES (1, 'x') RETURNING host_port()"


@pytest.fixture
def start(make_pooler):
    """start(replicas, ...): a pooler with the default intervals that knows its hosts."""
    def make(replicas, **options):
        options["interval"] = routing.DEFAULT_INTERVAL
        return wait_routed(make_pooler(**routing.options(replicas, **options)), replicas)
    return make


def port_of(result):
    assert not result.errors, result.errors
    return int(result.rows[0][0])


def state(pooler, host):
    return hosts(pooler)[host.address]["state"]


class Bystanders:
    """Clients that a failover must not touch: some idle after a write or a read, some asking while there is no primary."""

    def __init__(self, pooler):
        self.pooler = pooler
        self.idle = [pooler.wire(timeout=45) for _ in range(4)]
        self.waiting = []
        for number, client in enumerate(self.idle):
            assert not client.query(WRITE if number % 2 else "SELECT host_port()").errors
        self.idle[0].extended(parse("kept", WRITE))

    def wait_for_the_primary(self):
        """Three more begin to wait: for a statement, a block, and a prepared one."""
        self.waiting = [self.pooler.wire(timeout=45) for _ in range(2)] + [self.idle[0]]
        self.waiting[0].send(query(WRITE))
        self.waiting[1].send(query("BEGIN"))
        self.waiting[2].send(bind("kept"), execute(), SYNC)

    def check(self, port):
        """All have their answers, from the new primary."""
        if self.waiting:
            assert port_of(self.waiting[0].collect()) == port
            assert self.waiting[1].collect().status == "T"
            assert port_of(self.waiting[1].query(WRITE)) == port
            assert self.waiting[1].query("COMMIT").tags == ["COMMIT"]
            assert port_of(self.waiting[2].collect()) == port
        for client in self.idle:
            assert port_of(client.query(WRITE)) == port
            client.close()


# How the primary is lost: what happens to it before the promotion, what brings it back afterwards.

def kill(host):
    host.kill()


def shut_down(host):
    host.stop("immediate")


def freeze(host):
    host.freeze()


def freeze_network(host):
    host.forwarder.freeze()


def drop_network(host):
    host.forwarder.drop()


def refuse_network(host):
    host.forwarder.refuse()


def nothing(host):
    """It goes on, and claims to be primary as well."""


LOSSES = [kill, shut_down, freeze, freeze_network, drop_network, refuse_network, nothing]


def bring_back(host, loss):
    """As it was, on its old timeline."""
    if loss in (kill, shut_down):
        host.start()
    elif loss is freeze:
        host.thaw()
    elif loss is not nothing:
        host.forwarder.passing()


def served(host):
    """Backends that work for the pooler's clients. One that waits for a synchronous standby is blind to the end of its
    connection, and waits for ever."""
    return host.ask("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename = 'postgres'"
                    " AND application_name <> 'monitor' AND wait_event IS DISTINCT FROM 'SyncRep'")


class TestLostPrimary:
    @pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
    def test_promotion_under_load(self, make_replicas, start, loss):
        pair = make_replicas(forwarded="network" in loss.__name__)
        pair.set_synchronous()
        old, new = pair.hosts
        pooler = start(pair)
        others = Bystanders(pooler)
        with Ledger(pooler, pair) as ledger:
            ledger.wait_for(60)
            loss(old)
            lost_at = time.monotonic()
            if loss in (kill, shut_down, refuse_network):
                wait_until(lambda: state(pooler, old) == "down", 5, "the primary is known to be down")
                others.wait_for_the_primary()
            promoted_at = pair.promote()
            first = ledger.wait_for(60, port=new.port)
            print(f"first write {1000 * (first - promoted_at):.0f} ms after the promotion")
            assert first - promoted_at < 1.0 * PATIENCE
            others.check(new.port)
            bring_back(old, loss)
            wait_until(lambda: state(pooler, old) == "fenced", 10, "the old primary is fenced")
            ledger.wait_for(60, port=new.port, since=time.monotonic())
            wait_until(lambda: not served(old), 10, "the connections to the old primary are closed")
        ledger.reconcile()
        # What stood still is noticed only by the promotion, so transactions went on beginning there. Of what broke the
        # end may be noticed only after another request has been sent.
        ledger.check_failures(began_before=lost_at + 0.05 if loss in (kill, shut_down, refuse_network) else first)
        assert not [token for token, (moment, port) in ledger.records.acknowledged.items()
                    if port == old.port and moment > promoted_at + 0.05]

    def test_the_old_primary_takes_reads_as_a_standby(self, make_replicas, start):
        pair = make_replicas()
        old, new = pair.hosts
        pooler = start(pair)
        old.kill()
        pair.promote()
        with pooler.wire() as client:
            assert port_of(client.query(WRITE)) == new.port
            assert port_of(client.query("SELECT host_port()")) == new.port
            pair.rejoin(old)
            wait_until(lambda: port_of(client.query("SELECT host_port()")) == old.port, 10, "reads go to the standby")
            assert (hosts(pooler)[old.port]["role"], hosts(pooler)[new.port]["role"]) == ("standby", "primary")
            assert hosts(pooler)[old.port]["timeline"] == hosts(pooler)[new.port]["timeline"] == 2
            # And back again, made anew.
            new.stop("fast")
            pair.promote(old)
            assert port_of(client.query(WRITE)) == old.port
            pair.rejoin(new, "backup")
            wait_until(lambda: port_of(client.query("SELECT host_port()")) == new.port, 10, "reads go to the standby")

    def test_a_third_host_follows_the_new_primary(self, make_replicas, start):
        three = make_replicas(standbys=2)
        first, second, third = three.hosts
        pooler = start(three)
        first.kill()
        three.promote(second)
        with pooler.wire() as client:
            assert port_of(client.query(WRITE)) == second.port
            # It streams from nobody: what it has is of the old timeline.
            assert {port_of(client.query("SELECT host_port()")) for _ in range(10)} == {second.port}
            third.follow(second)
            third.stop()
            third.start()
            wait_until(lambda: port_of(client.query("SELECT host_port()")) == third.port, 10, "it takes reads")

    def test_nobody_is_promoted(self, make_replicas, start):
        """The primary restarts; who waited is served, who waited too long has been told."""
        pair = make_replicas()
        old = pair.primary
        pooler = start(pair, pgweir={"failover_wait_timeout": "1s"})
        patient = start(pair)
        clients = pooler.wire(), patient.wire()
        for client in clients:
            assert port_of(client.query(WRITE)) == old.port
        old.kill()
        for one in (pooler, patient):
            wait_until(lambda one=one: state(one, old) == "down", 5, "it is known to be down")
        began = time.monotonic()
        for client in clients:
            client.send(query(WRITE))
        result = clients[0].collect("ZE")
        assert 0.8 < time.monotonic() - began < 3 * PATIENCE
        assert result.error["C"] in ("57P03", "25006", "08001"), result.error
        assert where(pooler) == pair.standby.port
        old.start()
        assert port_of(clients[1].collect()) == old.port
        with pooler.wire() as again:
            assert port_of(again.query(WRITE)) == old.port

    def test_both_die_and_come_back(self, make_replicas, start):
        pair = make_replicas()
        pooler = start(pair)
        idle = pooler.wire(timeout=45)
        idle.query(WRITE)
        with Ledger(pooler, pair) as ledger:
            ledger.wait_for(30)
            for host in pair.hosts:
                host.stop("immediate")
            lost_at = time.monotonic()
            wait_until(lambda: all(state(pooler, host) == "down" for host in pair.hosts), 10, "both are known to be down")
            reader, writer = pooler.wire(timeout=45), pooler.wire(timeout=45)
            reader.send(query("SELECT host_port()"))
            writer.send(query(WRITE))
            for host in pair.hosts:
                host.start()
            ledger.wait_for(30, port=pair.primary.port, since=time.monotonic())
            assert port_of(writer.collect()) == pair.primary.port
            assert port_of(reader.collect()) in (pair.primary.port, pair.standby.port)
            assert port_of(idle.query(WRITE)) == pair.primary.port
        ledger.reconcile()
        ledger.check_failures(began_before=lost_at)
        wait_until(lambda: where(pooler) == pair.standby.port, 10, "reads are back on the standby")


class TestTransactionsInFlight:
    @pytest.mark.smoke
    def test_open_transactions_are_told(self, make_replicas, start):
        pair = make_replicas()
        pooler = start(pair)
        with pooler.wire() as idle, pooler.wire() as between, pooler.wire() as running:
            idle.query(WRITE)
            between.query("BEGIN")
            between.query(WRITE)
            running.query("BEGIN")
            running.send(query("SELECT pg_sleep(60)"))
            wait_until(pair.primary.sleepers, 5, "it runs")
            pair.primary.kill()
            for client in (running, between):
                fields = client.collect("E").error
                assert (fields["C"], fields["M"]) == CRASHED
            pair.promote()
            assert port_of(idle.query(WRITE)) == pair.primary.port

    @pytest.mark.parametrize("text", ["INSERT INTO notes SELECT 1, 'slow' FROM pg_sleep(60)",
                                      "SELECT take_note('x'), pg_sleep(60)",
                                      "SELECT pg_sleep(60) FROM shadow FOR UPDATE"])
    def test_what_may_have_written_is_not_sent_again(self, make_replicas, start, text):
        pair = make_replicas()
        pooler = start(pair)
        with pooler.wire() as client:
            client.send(query(text))
            wait_until(pair.primary.sleepers, 5, "it runs")
            pair.primary.kill()
            fields = client.collect("E").error
            assert (fields["C"], fields["M"]) == CRASHED
        pair.promote()
        with pooler.wire() as client:
            assert port_of(client.query(WRITE)) == pair.primary.port
        assert routes(pooler)["retries"] == 0

    @pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
    def test_reads_on_the_lost_primary_are_run_again(self, make_replicas, start, loss):
        """They are on the primary by a hint, in simple and in extended protocol."""
        pair = make_replicas(forwarded="network" in loss.__name__)
        old = pair.primary
        pooler = start(pair)
        seconds = f"CASE host_port() WHEN {old.port} THEN 60 ELSE 0 END"
        text = f"/* pgweir: primary */ SELECT host_port(), pg_sleep({seconds})"
        with pooler.wire(timeout=20) as simple, pooler.wire(timeout=20) as extended:
            simple.send(query(text))
            extended.send(parse("", text), bind(), describe("P"), execute(), SYNC)
            wait_until(lambda: len(old.sleepers()) == 2, 5, "they run")
            loss(old)
            pair.promote()
            for client in (simple, extended):
                assert port_of(client.collect("ZE")) == pair.primary.port
            bring_back(old, loss)


class TestLostStandby:
    @pytest.mark.parametrize("loss", [kill, shut_down, freeze, drop_network], ids=lambda loss: loss.__name__)
    def test_reads_move_to_the_primary(self, make_replicas, start, loss):
        pair = make_replicas(forwarded="network" in loss.__name__)
        standby = pair.standby
        pooler = start(pair)
        with pooler.wire(timeout=30) as held, Ledger(pooler, pair) as ledger:
            ledger.wait_for(30)
            held.send(query("SELECT hold_on_standby()"))
            wait_until(standby.sleepers, 5, "it runs")
            loss(standby)
            assert port_of(held.collect()) == pair.primary.port
            ledger.wait_for(60, since=time.monotonic())
            assert where(pooler) == pair.primary.port
            bring_back(standby, loss)
            wait_until(lambda: where(pooler) == standby.port, 15, "reads are back on the standby")
            ledger.wait_for(60, since=time.monotonic())
        ledger.reconcile()
        assert not ledger.records.failed_transfers and not ledger.records.failed_reads

    def test_a_read_only_block_on_it_is_told(self, make_replicas, start):
        pair = make_replicas()
        pooler = start(pair)
        with pooler.wire() as client:
            client.query("BEGIN READ ONLY")
            client.query("SELECT 1")
            pair.standby.kill()
            fields = client.collect("E").error
            assert (fields["C"], fields["M"]) == CRASHED

    def test_a_standby_that_restarts_over_and_over(self, make_replicas, start):
        pair = make_replicas()
        pooler = start(pair)
        with Ledger(pooler, pair) as ledger:
            for _ in range(4):
                pair.standby.stop("immediate")
                ledger.wait_for(20, since=time.monotonic())
                pair.standby.start()
                ledger.wait_for(20, since=time.monotonic())
        ledger.reconcile()
        assert not ledger.records.failed_transfers and not ledger.records.failed_reads


class TestSwitchover:
    def begin(self, pooler):
        """Sends SWITCHOVER and waits until it says that a standby may be promoted."""
        console = pooler.console(timeout=45)
        console.send(query("SWITCHOVER app"))
        got = console.read()
        assert got.type == "N", got
        return console, got.fields()["M"]

    @pytest.mark.parametrize("stop_first", [True, False], ids=["old stopped", "old goes on"])
    def test_under_load_without_one_error(self, make_replicas, start, stop_first):
        pair = make_replicas()
        old, new = pair.hosts
        pooler = start(pair)
        others = Bystanders(pooler)
        with Ledger(pooler, pair) as ledger:
            ledger.wait_for(60)
            console, notice = self.begin(pooler)
            assert notice == (f"writes are held and standby 127.0.0.1:{new.port} has replayed everything:"
                              " promote it now")
            others.wait_for_the_primary()
            with pooler.wire() as reader:
                assert port_of(reader.query("SELECT host_port()")) == new.port
            if stop_first:
                old.stop("fast")
            promoted_at = pair.promote()
            result = console.collect()
            assert result.tags == ["SWITCHOVER"] and not result.errors
            console.close()
            first = ledger.wait_for(60, port=new.port)
            print(f"first write {1000 * (first - promoted_at):.0f} ms after the promotion")
            assert first - promoted_at < 1.0 * PATIENCE
            others.check(new.port)
            if not stop_first:
                old.stop("fast")
            pair.rejoin(old)
            wait_until(lambda: where(pooler) == old.port, 10, "reads go to the new standby")
        ledger.reconcile()
        assert not ledger.records.failed_transfers and not ledger.records.failed_reads

    def test_waits_for_open_transactions(self, make_replicas, start):
        pair = make_replicas()
        pooler = start(pair)
        with pooler.wire() as open_one, pooler.wire() as late, pooler.console(timeout=45) as console:
            open_one.query("BEGIN")
            assert port_of(open_one.query(WRITE)) == pair.primary.port
            console.send(query("SWITCHOVER app"))
            wait_until(lambda: held(pooler, late), 5, "new writes are held")
            assert console.quiet_for(0.3)
            assert port_of(open_one.query(WRITE)) == pair.primary.port
            assert open_one.query("COMMIT").tags == ["COMMIT"]
            assert console.read().type == "N"
            old = pair.primary
            old.stop("fast")
            pair.promote()
            assert console.collect().tags == ["SWITCHOVER"]
            assert port_of(late.collect()) == pair.primary.port
            with pair.primary.connect() as direct:
                assert direct.execute("SELECT count(*) FROM notes").fetchone() == (3,)

    def test_without_a_promotion_everything_goes_on(self, make_replicas, start):
        pair = make_replicas()
        pooler = start(pair, pgweir={"failover_wait_timeout": "1500ms"})
        with pooler.wire() as client:
            console, _ = self.begin(pooler)
            client.send(query(WRITE))
            result = console.collect()
            assert result.errors and not result.tags
            assert port_of(client.collect()) == pair.primary.port
            assert port_of(client.query(WRITE)) == pair.primary.port
            console.close()

    @pytest.mark.parametrize("command, words", [("SWITCHOVER", None), ("SWITCHOVER nosuch", "nosuch"),
                                                ("SWITCHOVER plain", "plain")])
    def test_what_cannot_be_switched(self, make_replicas, start, command, words):
        pair = make_replicas(standbys=1)
        entries = {**pair.databases(), "plain": f"host=127.0.0.1 port={pair.primary.port} dbname=app"}
        pooler = start(pair, databases=entries)
        with pooler.console() as console:
            result = console.query(command)
            assert result.errors and (words is None or words in result.error["M"])
        with pooler.wire() as client:
            assert port_of(client.query(WRITE)) == pair.primary.port

    def test_only_for_administrators(self, make_replicas, start):
        pair = make_replicas()
        pooler = start(pair)
        with pooler.console(user="stats") as console:
            assert console.query("SWITCHOVER app").errors


def held(pooler, client):
    """Whether writes are held: the first call sends one with `client`, later ones look for it among those that wait."""
    if not hasattr(client, "asked"):
        client.asked = True
        client.send(query(WRITE))
    return any(row["cl_waiting"] == 1 for row in pools(pooler).values()) or client.quiet_for(0.2)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_over_and_over(make_replicas, start):
    """Losses of either host at random for PGWEIR_SOAK_SECONDS, the lost one coming back as a standby."""
    pair = make_replicas(forwarded=True)
    pair.set_synchronous()
    pooler = start(pair)
    seed = time.time_ns()
    chance = random.Random(seed)
    print(f"seed {seed}")
    delays = []
    over = time.monotonic() + float(os.environ.get("PGWEIR_SOAK_SECONDS", "20"))
    with Ledger(pooler, pair) as ledger:
        ledger.wait_for(20)
        while time.monotonic() < over:
            old, loss = pair.primary, chance.choice(LOSSES)
            if chance.random() < 0.3:
                old.ask("ALTER SYSTEM RESET synchronous_standby_names")
                old.ask("SELECT pg_reload_conf()")
                lost = pair.standby
                loss(lost)
                ledger.wait_for(20, since=time.monotonic(), seconds=30)
                bring_back(lost, loss)
                wait_until(lambda: where(pooler) == lost.port, 20, "reads are back on the standby")
                wait_until(lost.streams, 10, "it streams again")
            else:
                loss(old)
                promoted_at = pair.promote()
                delays.append(ledger.wait_for(20, port=pair.primary.port, since=promoted_at, seconds=30) - promoted_at)
                bring_back(old, loss)
                wait_until(lambda: state(pooler, old) == "fenced", 20, "the old primary is fenced")
                old.stop("immediate")
                pair.rejoin(old, chance.choice(("rewind", "backup")))
                wait_until(lambda: where(pooler) == old.port, 20, "reads go to the new standby")
            pair.catch_up()
            pair.set_synchronous()
    ledger.reconcile()
    ledger.check_errors()
    print(f"{len(delays)} failovers, first write after {sorted(round(1000 * one) for one in delays)} ms;"
          f" {len(ledger.records.acknowledged)} transfers, {len(ledger.records.failed_transfers)} told of a crash")
    assert max(delays) < 1.0 * PATIENCE
