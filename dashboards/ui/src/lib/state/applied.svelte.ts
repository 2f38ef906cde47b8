// Which terms of the filter the page could not apply, and why. The filter bar marks them; nothing is ignored silently.
let reasons = $state.raw<Record<string, string>>({});
let all = $state('');

export function whyNotApplied(raw: string): string {
  return reasons[raw] ?? all;
}
/** For a page that takes no filter at all. */
export function appliesNone(why: string): void {
  all = why;
  reasons = {};
}
export function applied(problems: { term: string; error?: string | null }[] = []): void {
  all = '';
  reasons = Object.fromEntries(problems.filter((p) => p.error).map((p) => [p.term, p.error!]));
}
