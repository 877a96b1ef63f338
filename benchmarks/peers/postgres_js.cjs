// node: `listen` of postgres, which reconnects by itself.
"use strict";

const postgres = require("postgres");
const { dsn, options, say, counter } = require("./protocol.cjs");

async function main() {
  let notified = () => {};
  const sql = postgres(dsn, { onnotice: () => {} });
  for (let number = 0; number < Number(options.others || 0); number += 1) {
    await sql.listen(`other_${number}`, () => {});
  }
  await sql.listen("bench", () => notified());
  if (options.workload === "recovery") {
    notified = () => say("back");
    say("ready");
  } else {
    notified = counter();
  }
}

main();
