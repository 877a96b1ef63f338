// What a peer on node says, and how it measures itself.
"use strict";

const options = Object.fromEntries(
  process.argv.slice(3).map((argument) => argument.split(/=(.*)/s).slice(0, 2)),
);

const say = (event, figures = {}) => process.stdout.write(`${JSON.stringify({ [event]: figures })}\n`);

/** Return a function that counts one notification; it says `done` at the last one. */
function counter() {
  const count = Number(options.count);
  let received = 0;
  const began = process.hrtime.bigint();
  const before = process.cpuUsage();
  say("ready");
  return () => {
    received += 1;
    if (received !== count) return;
    const { user, system } = process.cpuUsage(before);
    const wall = Number(process.hrtime.bigint() - began) / 1e9;
    say("done", { received, cpu: (user + system) / 1e6, wall });
  };
}

module.exports = { dsn: process.argv[2], options, say, counter };
