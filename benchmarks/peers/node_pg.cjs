// node: the `notification` event of pg.
"use strict";

const { Client } = require("pg");
const { dsn, options, say, counter } = require("./protocol.cjs");

async function main() {
  let notified = () => {};
  const client = new Client({ connectionString: dsn });
  client.on("error", () => {}); // it does not come back by itself
  client.on("notification", () => notified());
  await client.connect();
  await client.query("LISTEN bench");
  if (options.workload === "recovery") {
    notified = () => say("back");
    say("ready");
    setInterval(() => {}, 1000);
  } else {
    notified = counter();
  }
}

main();
