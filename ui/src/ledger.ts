/** Bounded collections: how full each is, by entries or by bytes, whichever is nearer to its bound. */
import type { LedgerItem } from "./type";

export function fullness(item: LedgerItem): number {
  const entries = item.bound ? item.size / item.bound : 0;
  const weight = item.max_bytes ? (item.bytes ?? 0) / item.max_bytes : 0;
  return Math.max(entries, weight);
}
