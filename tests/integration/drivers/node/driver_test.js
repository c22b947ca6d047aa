// The driver script for node-postgres: node driver_test.js PORT; exits 0 and prints "ok" when all went well.
'use strict';
const assert = require('assert');
const path = require('path');
const modules = process.env.PGWEIR_NODE_MODULES;
const { Client, Pool } = require(path.join(modules, 'pg'));

const port = Number(process.argv[2]);
const options = { host: '127.0.0.1', port, user: 'postgres', database: 'app' };

async function connected(extra, work) {
  const client = new Client({ ...options, ...extra });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

async function prepared(client) {
  for (let n = 0; n < 20; n++) {
    const name = `plus-${n % 4}`;
    const result = await client.query({ name, text: `SELECT $1::int + ${n % 4} AS sum`, values: [n] });
    assert.strictEqual(result.rows[0].sum, n + (n % 4));
  }
  const many = await Promise.all([...Array(50).keys()].map((n) => client.query('SELECT $1::int AS n', [n])));
  assert.deepStrictEqual(many.map((r) => r.rows[0].n), [...Array(50).keys()]);
}

async function transactions(client) {
  await client.query('BEGIN');
  await client.query('CREATE TEMP TABLE t (n int) ON COMMIT DROP');
  await client.query('SAVEPOINT s');
  await assert.rejects(client.query('SELECT 1/$1::int', [0]), { code: '22012' });
  await client.query('ROLLBACK TO s');
  await client.query('INSERT INTO t SELECT generate_series(1, 10)');
  assert.strictEqual((await client.query('SELECT sum(n)::int AS s FROM t')).rows[0].s, 55);
  await client.query('DECLARE c CURSOR FOR SELECT n FROM t ORDER BY n');
  assert.strictEqual((await client.query('FETCH 4 FROM c')).rows.length, 4);
  await client.query('COMMIT');
}

async function errors(client) {
  await assert.rejects(client.query({ name: 'broken', text: 'SELEC 1' }), { code: '42601' });
  assert.strictEqual((await client.query({ name: 'broken', text: 'SELECT 7 AS n' })).rows[0].n, 7);
  await assert.rejects(client.query('SELECT * FROM no_such_table'), { code: '42P01' });
  const seen = new Promise((resolve) => client.once('notice', resolve));
  await client.query("DO $$ BEGIN RAISE NOTICE 'look'; END $$");
  assert.strictEqual((await seen).message, 'look');
}

async function parameters() {
  const zones = ['Europe/Prague', 'Asia/Tokyo', 'America/Lima'];
  await Promise.all(zones.map((zone) => connected({ application_name: zone, options: `-c TimeZone=${zone}` },
    async (client) => {
      for (let n = 0; n < 10; n++) {
        const { rows } = await client.query("SELECT current_setting('TimeZone') z, current_setting('application_name') a");
        assert.deepStrictEqual(rows[0], { z: zone, a: zone });
      }
    })));
}

async function cancel() {
  await connected({}, async (client) => {
    const { pid, sleeping } = { pid: client.processID, sleeping: client.query('SELECT pg_sleep(30)') };
    assert.ok(Number.isInteger(pid));
    const canceller = new Client(options);
    setTimeout(() => canceller.cancel(client, client.activeQuery || client._activeQuery), 300);
    await assert.rejects(sleeping, { code: '57014' });
    assert.strictEqual((await client.query('SELECT 1 AS n')).rows[0].n, 1);
  });
}

async function concurrent() {
  const pool = new Pool({ ...options, max: 20 });
  await Promise.all([...Array(20).keys()].map(async (number) => {
    const client = await pool.connect();
    for (let turn = 0; turn < 25; turn++) {
      const token = `${number}/${turn}`;
      const { rows } = await client.query({ name: 'token', text: 'SELECT $1::text AS t, pg_sleep(0.001)', values: [token] });
      assert.strictEqual(rows[0].t, token);
    }
    client.release();
  }));
  await pool.end();
}

(async () => {
  await connected({}, async (client) => {
    await prepared(client);
    await transactions(client);
    await errors(client);
  });
  await parameters();
  await cancel();
  await concurrent();
  console.log('ok');
})().catch((failure) => {
  console.error(failure);
  process.exit(1);
});
