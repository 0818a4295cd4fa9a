/** Times that tick. Only these small components draw again each second, not the tables around them. */
import { now } from "../clock";
import { age, duration, time } from "../format";

/** How long ago, with the exact time on hover. */
export function Age({ at }: { at: number | null | undefined }) {
  if (at == null) return <span class="quiet">–</span>;
  return <span title={time(at, now.value)}>{age(now.value - at)}</span>;
}

/** A length that still grows while there is no end. */
export function Span({ from, to }: { from: number | null | undefined; to: number | null | undefined }) {
  if (from == null) return <span class="quiet">–</span>;
  return <span title={time(from, now.value)}>{to == null ? age(now.value - from) : duration(to - from)}</span>;
}

export function Moment({ at }: { at: number | null | undefined }) {
  if (at == null) return <span class="quiet">–</span>;
  return <span title={new Date(at * 1000).toISOString()}>{time(at, now.value)}</span>;
}
