// node: pg-listen, which reconnects and replays by itself.
"use strict";

const createSubscriber = require("pg-listen").default;
const { dsn, options, say, counter } = require("./protocol.cjs");

async function main() {
  let notified = () => {};
  const parse = (text) => text;
  const subscriber = createSubscriber({ connectionString: dsn }, { parse, serialize: parse });
  subscriber.events.on("error", () => {});
  subscriber.notifications.on("bench", () => notified());
  await subscriber.connect();
  for (let number = 0; number < Number(options.others || 0); number += 1) {
    await subscriber.listenTo(`other_${number}`);
  }
  await subscriber.listenTo("bench");
  if (options.workload === "recovery") {
    notified = () => say("back");
    say("ready");
  } else {
    notified = counter();
  }
}

main();
