/* How the search ranks what it finds: first a heading that holds all that was searched for, and
   last the pages that are looked into for other reasons. */
const LATER = /^(changelog|contributing|design|driver-reports|reference\/)/;

var Scorer = {
  score: ([page, , , , score, , kind]) => {
    if (kind === "title") return score + 20;
    return kind !== "object" && LATER.test(page) ? score - 10 : score;
  },
  // What follows is Sphinx's own.
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
