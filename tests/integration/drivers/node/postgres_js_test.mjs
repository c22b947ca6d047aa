// postgres.js prepares everything it is given under names of its own and pipelines it: node postgres_js_test.mjs PORT.
// Prints ok.
import assert from 'assert';
import path from 'path';
import { pathToFileURL } from 'url';
import { pipeline } from 'stream/promises';
import { Readable } from 'stream';

const entry = path.join(process.env.PGWEIR_NODE_MODULES, 'postgres', 'src', 'index.js');
const { default: postgres } = await import(pathToFileURL(entry));

const port = Number(process.argv[2]);
const connect = (extra) => postgres({
  host: '127.0.0.1', port, user: 'postgres', database: 'app', onnotice: () => {}, ...extra,
});

async function statements() {
  const sql = connect({ max: 10 });
  const found = await Promise.all([...Array(300).keys()].map((n) => sql`SELECT ${n}::int AS n, ${'token ' + n}::text AS t`));
  found.forEach(([row], n) => assert.deepStrictEqual({ ...row }, { n, t: `token ${n}` }));
  // More texts than a server keeps.
  for (let n = 0; n < 250; n++) assert.strictEqual((await sql.unsafe(`SELECT ${n} + $1::int AS n`, [1], { prepare: true }))[0].n, n + 1);
  await assert.rejects(sql`SELECT 1/${0}::int`, { code: '22012' });
  await assert.rejects(sql`SELECT nothing`, { code: '42703' });
  assert.deepStrictEqual((await sql`SELECT ${sql.array([1, 2, 3])}::int[] AS a`)[0].a, [1, 2, 3]);
  assert.deepStrictEqual((await sql`SELECT ${sql.json({ a: 1 })}::jsonb AS j`)[0].j, { a: 1 });
  assert.strictEqual((await sql`SELECT ${'x'}::text AS t`.describe()).columns[0].name, 't');
  assert.deepStrictEqual((await sql`SELECT 1 AS a; SELECT 2 AS b`.simple()).map((r) => r[0].a ?? r[0].b), [1, 2]);
  await sql.end();
}

async function transactions() {
  const sql = connect({ max: 4 });
  await sql`DROP TABLE IF EXISTS postgres_js`;
  await sql`CREATE TABLE postgres_js (n int, t text)`;
  await Promise.all([...Array(20).keys()].map((number) => sql.begin(async (tx) => {
    await tx`INSERT INTO postgres_js ${tx([...Array(10).keys()].map((n) => ({ n, t: String(number) })))}`;
    await assert.rejects(tx.savepoint((inner) => inner`SELECT 1/${0}::int`), { code: '22012' });
    const [first, second] = await Promise.all([
      tx`SELECT count(*)::int AS c FROM postgres_js WHERE t = ${String(number)}`, tx`SELECT ${number}::int AS n`]);
    assert.strictEqual(first[0].c, 10);
    assert.strictEqual(second[0].n, number);
  })));
  await sql.begin(async (tx) => {
    const rows = [];
    await tx`SELECT n FROM postgres_js ORDER BY n, t`.cursor(7, (some) => { rows.push(...some); });
    assert.strictEqual(rows.length, 200);
    for await (const [row] of tx`SELECT n FROM postgres_js ORDER BY n LIMIT 3`.cursor()) assert.strictEqual(row.n, 0);
  });
  await pipeline(Readable.from(['500\ta\n', '501\tb\n']), await sql`COPY postgres_js FROM STDIN`.writable());
  let copied = '';
  for await (const piece of await sql`COPY (SELECT n FROM postgres_js WHERE n > 400 ORDER BY n) TO STDOUT`.readable()) copied += piece;
  assert.strictEqual(copied, '500\n501\n');
  await assert.rejects(sql.begin((tx) => [tx`SELECT 1`, tx`SELECT 1/0`, tx`SELECT 2`]), { code: '22012' });
  const slow = sql`SELECT pg_sleep(60)`;
  setTimeout(() => slow.cancel(), 300);
  await assert.rejects(slow, { code: '57014' });
  await sql`DROP TABLE postgres_js`;
  await sql.end();
}

async function parameters() {
  await Promise.all(['Europe/Prague', 'Asia/Tokyo', 'America/Lima'].map(async (zone) => {
    const sql = connect({ max: 2, connection: { TimeZone: zone, application_name: zone, statement_timeout: 5000 } });
    for (let n = 0; n < 10; n++) {
      const [row] = await sql`SELECT current_setting('TimeZone') AS z, current_setting('application_name') AS a,
        current_setting('statement_timeout') AS s`;
      assert.deepStrictEqual({ ...row }, { z: zone, a: zone, s: '5s' });
    }
    await sql.end();
  }));
}

await statements();
await transactions();
await parameters();
console.log('ok');
