/** Addresses: `#/runs/01J…?block=-1/3`. The hash keeps the page independent of where the server puts it. */
import { signal } from "@preact/signals";

export interface Route {
  path: string[];
  query: Record<string, string>;
}

export function parseRoute(hash: string): Route {
  const [place = "", tail = ""] = hash.replace(/^#?\/?/, "").split("?", 2);
  const path = place.split("/").filter(Boolean).map(decode);
  return { path, query: Object.fromEntries(new URLSearchParams(tail)) };
}

export function href(path: readonly string[], query: Record<string, string | null | undefined> = {}): string {
  const params = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) if (value != null && value !== "") params.set(key, value);
  const tail = params.toString();
  return `#/${path.map(encodeURIComponent).join("/")}${tail ? `?${tail}` : ""}`;
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export const route = signal<Route>({ path: [], query: {} });

export function startRouter(): void {
  const read = () => {
    route.value = parseRoute(location.hash);
  };
  addEventListener("hashchange", read);
  read();
}

export function go(path: readonly string[], query: Record<string, string | null | undefined> = {}): void {
  location.hash = href(path, query);
}

/** Change the query of the shown view without a new step in the browser's history. */
export function setQuery(change: Record<string, string | null | undefined>): void {
  const { path, query } = route.value;
  history.replaceState(null, "", href(path, { ...query, ...change }));
  route.value = parseRoute(location.hash);
}

export const toRun = (run: string, block?: string) => href(["runs", run], { block });
export const toSite = (site: string) => href(["sites"], { site });
export const toDefinition = (name: string) => href(["definitions", name]);
export const toRuns = (query: Record<string, string>) => href(["runs"], query);
