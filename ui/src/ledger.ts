/** Bounded collections: how full each is, by entries or by bytes, whichever is nearer to its bound. */
import { count, percent, plural } from "./format";
import type { LedgerItem } from "./type";

export function fullness(item: LedgerItem): number {
  const entries = item.bound ? item.size / item.bound : 0;
  const weight = item.max_bytes ? (item.bytes ?? 0) / item.max_bytes : 0;
  return Math.max(entries, weight);
}

/** Histograms and single places are full by design: that says nothing. */
export function isFixed(item: LedgerItem): boolean {
  return item.kind === "histogram" || item.bound <= 1;
}

/** The fullest first, those of a fixed size last. */
export function byFullness(items: readonly LedgerItem[]): LedgerItem[] {
  return [...items].sort((a, b) => Number(isFixed(a)) - Number(isFixed(b)) || fullness(b) - fullness(a) || (a.name < b.name ? -1 : 1));
}

export function describeLedger(items: readonly LedgerItem[]): string {
  const [fullest] = byFullness(items);
  if (!fullest) return "The server reports no collections.";
  const over = items.filter((item) => fullness(item) > 1);
  if (over.length > 0) return `Beyond the bound: ${over.map((item) => item.name).join(", ")}. That should not happen.`;
  const gone = items.reduce((sum, item) => sum + item.evictions, 0);
  const released = gone > 0 ? ` ${plural(gone, "entry was", "entries were")} let go to stay there.` : "";
  return `Each of ${count(items.length)} is within its bound; the fullest is ${fullest.name} at ${percent(fullness(fullest), 1)}.${released}`;
}
