/** Numbers, times and lengths as people say them. Decimal units: 1 MB = 1,000,000 bytes. */

const integer = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const clockTime = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const dayTime = new Intl.DateTimeFormat("en-GB", {
  day: "2-digit",
  month: "short",
  hour: "2-digit",
  minute: "2-digit",
});
const UNITS = ["B", "kB", "MB", "GB", "TB"];
const NONE = "–";

export function count(value: number | null | undefined): string {
  return value == null || !Number.isFinite(value) ? NONE : integer.format(value);
}

/** Three significant digits, never more than the value deserves: 0.5, 12.3, 456. */
export function short(value: number): string {
  const size = Math.abs(value);
  return size >= 99.95 ? integer.format(value) : String(Number(value.toFixed(size >= 9.995 ? 1 : 2)));
}

export function bytes(value: number | null | undefined): string {
  if (value == null || !Number.isFinite(value)) return NONE;
  let unit = 0;
  let size = Math.abs(value);
  while (size >= 999.5 && unit < UNITS.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${value < 0 ? "−" : ""}${unit === 0 ? integer.format(size) : size.toFixed(size >= 99.95 ? 0 : 1)} ${UNITS[unit]}`;
}

/** A signed amount of memory in MB: "+0.1 MB", "−12 MB". */
export function signedMb(value: number): string {
  const mb = Math.abs(value) / 1e6;
  const digits = mb >= 9.95 ? 0 : mb >= 0.095 || mb < 0.0005 ? 1 : 2;
  const text = mb.toFixed(digits);
  return Number(text) === 0 ? "0 MB" : `${value < 0 ? "−" : "+"}${text} MB`;
}

/** "850 ms", "12 s", "3 min 20 s", "2 h 5 min", "3 d 4 h": at most two units. */
export function duration(seconds: number | null | undefined): string {
  if (seconds == null || !Number.isFinite(seconds)) return NONE;
  const s = Math.max(0, seconds);
  if (s < 0.9995) return `${Math.round(s * 1000)} ms`;
  if (s < 9.95) return `${s.toFixed(1)} s`;
  if (s < 59.5) return `${Math.round(s)} s`;
  const whole = Math.round(s);
  if (whole < 3600) return pair(Math.floor(whole / 60), "min", whole % 60, "s");
  if (whole < 86_400) return pair(Math.floor(whole / 3600), "h", Math.floor((whole % 3600) / 60), "min");
  return pair(Math.floor(whole / 86_400), "d", Math.floor((whole % 86_400) / 3600), "h");
}

/** Like `duration`, in whole seconds: for ages that tick once a second and must not flicker. */
export function age(seconds: number | null | undefined): string {
  if (seconds == null || !Number.isFinite(seconds)) return NONE;
  return seconds < 59.5 ? `${Math.max(0, Math.round(seconds))} s` : duration(seconds);
}

function pair(big: number, bigUnit: string, small: number, smallUnit: string): string {
  return small === 0 ? `${big} ${bigUnit}` : `${big} ${bigUnit} ${small} ${smallUnit}`;
}

/** The time of day, with the date when it is another day. */
export function time(at: number | null | undefined, now = Date.now() / 1000): string {
  if (at == null) return NONE;
  return (sameDay(at, now) ? clockTime : dayTime).format(at * 1000);
}

function sameDay(one: number, other: number): boolean {
  return new Date(one * 1000).toDateString() === new Date(other * 1000).toDateString();
}

export function ordinal(n: number): string {
  const tail = n % 100;
  const suffix = tail >= 11 && tail <= 13 ? "th" : (["th", "st", "nd", "rd"][n % 10] ?? "th");
  return `${n}${suffix}`;
}

export function plural(n: number, one: string, many = `${one}s`): string {
  return `${count(n)} ${n === 1 ? one : many}`;
}

export function percent(part: number, whole: number): string {
  if (whole <= 0) return NONE;
  const share = (100 * part) / whole;
  return share > 0 && share < 1 ? "< 1 %" : `${Math.floor(share)} %`;
}

/** The last characters of a run's id: enough to tell rows apart; the full id is in the title and on the run's page. */
export function shortId(id: string): string {
  return id.length > 10 ? `…${id.slice(-8)}` : id;
}
