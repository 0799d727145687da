// main.mjs URL burn COUNT | latency COUNT: graphile-worker does no-op jobs; told as shared/test-kit/peers/README.md says.
// Settings: those of its own benchmark (perfTest): batches into a local queue, completions in batches, concurrency 24.
import { createInterface } from "node:readline/promises";
import { makeWorkerUtils, run, runMigrations } from "graphile-worker";
import pg from "pg";

const [connectionString, mode, given] = process.argv.slice(2);
const count = Number(given);
const INSERTED = 5000;
const pool = new pg.Pool({ connectionString, max: 10 });
pool.on("error", (error) => { throw error; });
pool.on("connect", (client) => client.on("error", (error) => { throw error; }));
const burning = mode === "burn";
const preset = {
  worker: burning
    ? { localQueue: { size: 500, refetchDelay: { durationMs: 10 } }, completeJobBatchDelay: 0, failJobBatchDelay: 0 }
    : {},
};
const logger = { scope: () => logger, error: console.error, warn() {}, info() {}, debug() {} };

await runMigrations({ pgPool: pool });
let started;
const tasks = { noop: () => { started?.(performance.now()); } };
const runner = () => run({ pgPool: pool, concurrency: 24, noHandleSignals: true, taskList: tasks, preset, logger });
const lines = createInterface({ input: process.stdin });
const go = async () => {
  console.log("ready");
  for await (const _line of lines) return;
};

if (burning) {
  const utils = await makeWorkerUtils({ pgPool: pool, logger });
  for (let done = 0; done < count; done += INSERTED) {
    const jobs = Math.min(INSERTED, count - done);
    await utils.addJobs(Array.from({ length: jobs }, () => ({ identifier: "noop", payload: {} })));
  }
  await pool.query("VACUUM ANALYZE graphile_worker._private_jobs");
  await go();
  const began = performance.now();
  const running = await runner();
  const left = () => pool.query("SELECT 1 FROM graphile_worker._private_jobs LIMIT 1");
  while ((await left()).rowCount > 0) await new Promise((done) => setTimeout(done, 20));
  console.log((performance.now() - began) / 1000);
  await running.stop();
} else {
  const running = await runner();
  await go();
  for (let job = 0; job < count; job++) {
    const asked = performance.now();
    const start = new Promise((resolve) => { started = resolve; });
    await pool.query("SELECT graphile_worker.add_job('noop', '{}'::json)");
    console.log((await start) - asked);
    await new Promise((done) => setTimeout(done, 20));
  }
  await running.stop();
}
process.exit(0);
