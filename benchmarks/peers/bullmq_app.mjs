// BullMQ: `node bullmq_app.mjs worker` executes jobs; `node bullmq_app.mjs client` takes orders, as
// benchmarks/peers/client.py does. The packages are in the folder NODE_FOLDER.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(`${process.env.NODE_FOLDER}/index.js`);
const { Queue, QueueEvents, Worker } = require("bullmq");
const Redis = require("ioredis");
const address = new URL(process.env.BENCH_URL);
const connection = { host: address.hostname, port: Number(address.port), maxRetriesPerRequest: null };
const CONCURRENCY = 100, SUBMITTERS = 100, TOGETHER = 100, WARM_UP = 3, LOOK_MS = 10, SETTLING_MS = 500;
const DONE = "bench:done";
const settled = () => new Promise((done) => setTimeout(done, SETTLING_MS));
const now = () => performance.timeOrigin + performance.now();

function work() {
  let count = 0;
  const client = new Redis(connection);
  new Worker("bench", async (job) => {
    if (job.name === "clock") return now();
    count += 1;
    if (count % TOGETHER === 0) await client.setbit(DONE, count / TOGETHER, 1);
  }, { connection, concurrency: CONCURRENCY });
}

async function serve() {
  const queue = new Queue("bench", { connection });
  const events = new QueueEvents("bench", { connection });
  await events.waitUntilReady();
  const client = new Redis(connection);
  const ask = async () => (await queue.add("clock", {})).waitUntilFinished(events);

  async function usage() {
    const text = (await client.info("cpu")) + (await client.info("commandstats"));
    let server = 0, script = 0, commands = 0;
    for (const [, seconds] of text.matchAll(/^used_cpu_(?:sys|user):(\S+)/gm)) server += Number(seconds);
    for (const [, name, calls, usec] of text.matchAll(/^cmdstat_([^:|]+)[^:]*:calls=(\d+),usec=(\d+)/gm)) {
      if (/^(eval|evalsha|fcall)(_ro)?$/.test(name)) script += Number(usec);
      else if (!/^(info|client|hello|ping|auth|select|config|command|setbit)$/.test(name)) commands += Number(calls);
    }
    return { server, script, commands, wall: performance.now(), client: process.cpuUsage() };
  }

  let submitted = 0;
  async function executed(count) {
    submitted += count;
    await Promise.all(Array.from({ length: SUBMITTERS }, async () => {
      for (let each = 0; each < count / SUBMITTERS; each += 1) await queue.add("noop", {});
    }));
    while (!(await client.setbit(DONE, submitted / TOGETHER - 1, 0))) await new Promise((done) => setTimeout(done, LOOK_MS));
  }

  async function jobs({ count }) {
    for (let each = 0; each < WARM_UP; each += 1) await ask();
    await executed(2 * SUBMITTERS);
    await settled();
    const before = await usage();
    await executed(count);
    const seconds = (performance.now() - before.wall) / 1000;
    await settled();
    const after = await usage(), cpu = process.cpuUsage(before.client);
    return [{
      figure: "noops", value: (count - TOGETHER) / seconds,
      client_us: (cpu.user + cpu.system) / count, server_us: ((after.server - before.server) * 1e6) / count,
      script_us: (after.script - before.script) / count, commands: (after.commands - before.commands) / count,
    }];
  }

  async function asked({ count }) {
    for (let each = 0; each < WARM_UP; each += 1) await ask();
    const starts = [], results = [];
    for (let each = 0; each < count; each += 1) {
      const began = now(), started = await ask();
      results.push(now() - began);
      starts.push(started - began);
    }
    return [...latencies("start", starts), ...latencies("result", results)];
  }

  function latencies(figure, delays) {
    const sorted = delays.toSorted((one, other) => one - other);
    const at = (part) => sorted[Math.round(part * (sorted.length - 1))];
    return [{ figure: `${figure}_p50`, value: at(0.5), samples: delays }, { figure: `${figure}_p99`, value: at(0.99) }];
  }

  for await (const line of createInterface({ input: process.stdin })) {
    const order = JSON.parse(line);
    const found = await (order.work === "jobs" ? jobs(order.arguments) : asked(order.arguments));
    process.stdout.write(`${JSON.stringify(found)}\n`);
  }
  process.exit(0);
}

if (process.argv[2] === "worker") work();
else await serve();
