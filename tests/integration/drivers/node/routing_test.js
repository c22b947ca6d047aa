// Where node-postgres' queries go: node routing_test.js PORT PRIMARY STANDBY; exits 0 and prints "ok" when all went well.
'use strict';
const assert = require('assert');
const path = require('path');
const { Client, Pool } = require(path.join(process.env.PGWEIR_NODE_MODULES, 'pg'));

const [port, primary, standby] = process.argv.slice(2).map(Number);
const options = { host: '127.0.0.1', port, user: 'postgres', database: 'app' };

async function oneClient() {
  const client = new Client(options);
  await client.connect();
  for (let n = 0; n < 10; n++) {
    const named = { name: `where-${n % 2}`, text: 'SELECT host_port() AS port, $1::int AS n', values: [n] };
    assert.deepStrictEqual((await client.query(named)).rows, [{ port: standby, n }]);
  }
  assert.strictEqual((await client.query('SELECT host_port() AS port')).rows[0].port, standby);
  await client.query('BEGIN');
  assert.strictEqual((await client.query('SELECT host_port() AS port')).rows[0].port, primary);
  await client.query('COMMIT');
  const written = await client.query('INSERT INTO notes VALUES ($1, $2) RETURNING host_port() AS port', [11, 'node']);
  assert.strictEqual(written.rows[0].port, primary);
  await client.end();
}

// What Promise.all sends is one read and one write after the other, over several connections.
async function pooled() {
  const pool = new Pool({ ...options, max: 8 });
  const ports = await Promise.all([...Array(200).keys()].map(async (n) => {
    const text = n % 2 ? 'INSERT INTO notes VALUES (12, $1) RETURNING host_port() AS port'
      : '/* pgweir: standby */ SELECT host_port() AS port, $1::text';
    return (await pool.query(text, [String(n)])).rows[0].port;
  }));
  ports.forEach((got, n) => assert.strictEqual(got, n % 2 ? primary : standby));
  await pool.end();
}

oneClient().then(pooled).then(() => console.log('ok'));
