/* How the search ranks what it finds: a section that is called what was searched for comes first,
   the pages that are looked into for other reasons come last. */
const LATER = /^(changelog|contributing|design|driver-reports|reference\/)/;

var Scorer = {
  score: ([document, , , , score, , kind]) => (kind !== "object" && LATER.test(document) ? score - 10 : score),
  objNameMatch: 60,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 60,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
