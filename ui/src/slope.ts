/**
 * Is memory flat? A sentence from the last samples: the median of all pairwise slopes (Theil–Sen: spikes do not
 * move it) with the confidence interval of its ranks (Sen 1968), so that two noisy points never make a "leak".
 */
import { bytes, duration, signedMb } from "./format";

export type Sample = readonly [at: number, bytes: number];
export type Verdict = { kind: "measuring" | "settling" | "flat" | "growing" | "falling"; sentence: string; perHour: number | null };

export interface SlopeOptions {
  windowS?: number;
  startedAt?: number | null;
  limitBytes?: number | null;
}

const WINDOW_S = 1800;
const MIN_WINDOW_S = 120;
/** Imports, caches and pools fill while a server starts; that is not a trend. */
const WARM_UP_S = 60;
const MAX_POINTS = 120;
const MIN_POINTS = 8;
/** Bounded caches and rings fill for some minutes more: only much growth is called growth before this. */
const SETTLED_S = 600;
const SETTLING_SHARE = 0.25;
/** Below these growth is called flat: 1 % of the size, or 1 MB, in an hour. */
const FLAT_SHARE_PER_HOUR = 0.01;
const FLAT_BYTES_PER_HOUR = 1e6;

export function verdict(samples: readonly Sample[], options: SlopeOptions = {}): Verdict {
  const points = thin(select(samples, options), MAX_POINTS);
  const first = points[0];
  const last = points[points.length - 1];
  const span = first && last ? last[0] - first[0] : 0;
  if (!last || points.length < MIN_POINTS || span < MIN_WINDOW_S) return measuring(span);
  const trend = theilSen(points);
  const perHour = trend.slope * 3600;
  const over = `over the last ${duration(Math.round(span / 60) * 60)}`;
  const amount = span >= SETTLED_S ? `${signedMb(perHour)}/h` : signedMb(trend.slope * span);
  const flat = Math.max(FLAT_BYTES_PER_HOUR, FLAT_SHARE_PER_HOUR * last[1]);
  if (Math.abs(perHour) < flat) return { kind: "flat", sentence: `flat: ${amount} ${over}`, perHour };
  if (trend.low <= 0 && trend.high >= 0) return { kind: "flat", sentence: `flat: no trend ${over} (${range(points)})`, perHour };
  if (span < SETTLED_S && trend.slope * span < SETTLING_SHARE * last[1]) {
    return { kind: "settling", sentence: `settling: ${amount} ${over}, as caches fill; a verdict takes 10 min`, perHour };
  }
  const kind = perHour > 0 ? "growing" : "falling";
  return { kind, sentence: `${kind}: ${amount} ${over}${limit(last[1], trend.slope, options.limitBytes)}`, perHour };
}

function measuring(span: number): Verdict {
  const rest = Math.max(1, MIN_WINDOW_S - span);
  const sentence = span >= MIN_WINDOW_S ? "measuring: more samples are needed" : `measuring: a verdict in ${duration(Math.ceil(rest))}`;
  return { kind: "measuring", sentence, perHour: null };
}

function select(samples: readonly Sample[], options: SlopeOptions): Sample[] {
  const end = samples[samples.length - 1]?.[0] ?? 0;
  const warm = options.startedAt == null ? 0 : options.startedAt + WARM_UP_S;
  const from = Math.max(end - (options.windowS ?? WINDOW_S), warm);
  return samples.filter(([at]) => at >= from);
}

function thin<T>(values: readonly T[], most: number): T[] {
  if (values.length <= most) return [...values];
  const step = (values.length - 1) / (most - 1);
  return Array.from({ length: most }, (_, i) => values[Math.round(i * step)] as T);
}

/** The median pairwise slope in bytes per second, and its 95 % interval. */
export function theilSen(points: readonly Sample[]): { slope: number; low: number; high: number } {
  const slopes: number[] = [];
  for (let i = 0; i < points.length; i++) {
    for (let j = i + 1; j < points.length; j++) {
      const [t0, y0] = points[i] as Sample;
      const [t1, y1] = points[j] as Sample;
      if (t1 > t0) slopes.push((y1 - y0) / (t1 - t0));
    }
  }
  slopes.sort((a, b) => a - b);
  const n = points.length;
  const spread = 1.96 * Math.sqrt((n * (n - 1) * (2 * n + 5)) / 18);
  const at = (rank: number) => slopes[Math.min(slopes.length - 1, Math.max(0, Math.round(rank)))] ?? 0;
  const middle = (slopes.length - 1) / 2;
  return { slope: (at(Math.floor(middle)) + at(Math.ceil(middle))) / 2, low: at(middle - spread / 2), high: at(middle + spread / 2) };
}

function range(points: readonly Sample[]): string {
  const sizes = points.map(([, size]) => size);
  return `between ${bytes(Math.min(...sizes))} and ${bytes(Math.max(...sizes))}`;
}

function limit(rss: number, slope: number, limitBytes: number | null | undefined): string {
  if (!limitBytes || slope <= 0 || limitBytes <= rss) return "";
  return `; at this rate the limit of ${bytes(limitBytes)} is reached in ${duration((limitBytes - rss) / slope)}`;
}
