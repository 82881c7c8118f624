const assert = require('assert');
const fs = require('fs');
const { Client, Pool } = require('pg');

const config = {
  ssl: { ca: fs.readFileSync(process.env.PGSSLROOTCERT), servername: 'localhost' },
};
delete process.env.PGSSLMODE;

async function main() {
  const pool = new Pool({ ...config, max: 3 });
  const one = await pool.query('select 1 as one');
  assert.deepStrictEqual(one.rows, [{ one: 1 }]);
  const sum = await pool.query('select $1::int + $2::int as sum', [40, 2]);
  assert.strictEqual(sum.rows[0].sum, 42);
  const named = { name: 'twice', text: 'select $1::text as text' };
  for (const text of ['a', 'b']) {
    const found = await pool.query({ ...named, values: [text] });
    assert.strictEqual(found.rows[0].text, text);
  }
  const many = await Promise.all([1, 2, 3, 4, 5, 6].map((n) => pool.query('select $1::int as n', [n])));
  assert.deepStrictEqual(many.map((found) => found.rows[0].n), [1, 2, 3, 4, 5, 6]);

  const held = await pool.connect();
  await held.query('begin');
  await held.query('create table node_rows (id int)');
  await held.query('insert into node_rows values ($1)', [7]);
  await held.query('commit');
  await held.query('begin');
  await held.query('delete from node_rows');
  await held.query('rollback');
  assert.strictEqual((await held.query('select id from node_rows')).rows[0].id, 7);
  await assert.rejects(held.query('select 1 / 0'), { code: '22012' });
  held.release();
  await pool.end();

  // One that idles hears of the end as an event; one that works, as its error.
  const idle = new Client(config);
  const busy = new Client(config);
  await idle.connect();
  await busy.connect();
  busy.on('error', () => {});
  const told = new Promise((resolve) => idle.on('error', resolve));
  const running = busy.query('select pg_sleep(30)').catch((error) => error);
  console.log('READY', require('pg/package.json').version, process.version);
  const [first, second] = await Promise.all([told, running]);
  console.log('CUT', first.code, second.code, second.severity);

  const refused = await new Client(config).connect().catch((error) => error);
  console.log('REFUSED', refused.code, refused.message);
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
