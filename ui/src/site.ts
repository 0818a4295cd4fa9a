/** Sites: how a group is laid out on the map, and what one site is in words. */
import { BoundedMap } from "./bounded";
import type { Batch } from "./event";
import { plural } from "./format";
import type { Json, Robot, Site } from "./type";

export interface Lane {
  name: string;
  mouths: number;
  /** From the mouth inwards. */
  sites: Site[];
}

export type Layout = { kind: "lanes"; lanes: Lane[] } | { kind: "grid"; rows: Site[][] };

export interface Group {
  name: string;
  sites: Site[];
  layout: Layout;
  summary: string;
}

const natural = new Intl.Collator("en", { numeric: true }).compare;

export function bySiteOrder(a: Site, b: Site): number {
  return a.order_no - b.order_no || natural(a.id, b.id);
}

export function groupsOf(sites: readonly Site[]): Group[] {
  const groups = new Map<string, Site[]>();
  for (const site of sites) {
    const name = site.group ?? "";
    const members = groups.get(name);
    if (members) members.push(site);
    else groups.set(name, [site]);
  }
  return [...groups]
    .map(([name, members]) => ({ name, sites: members, layout: layoutOf(members), summary: summaryOf(members) }))
    .sort((a, b) => natural(a.name, b.name));
}

function layoutOf(sites: Site[]): Layout {
  if (sites.some((site) => site.lane !== null && site.depth !== null)) return { kind: "lanes", lanes: lanesOf(sites) };
  return { kind: "grid", rows: gridRows([...sites].sort(bySiteOrder)) };
}

function lanesOf(sites: readonly Site[]): Lane[] {
  const lanes = new Map<string, Site[]>();
  for (const site of sites) {
    const name = site.lane ?? "";
    const members = lanes.get(name);
    if (members) members.push(site);
    else lanes.set(name, [site]);
  }
  return [...lanes]
    .map(([name, members]) => ({
      name,
      mouths: Math.max(1, ...members.map((site) => site.mouths ?? 1)),
      sites: members.sort((a, b) => (a.depth ?? 0) - (b.depth ?? 0)),
    }))
    .sort((a, b) => natural(a.name, b.name));
}

/** Racks are named by row, B-1 become two rows. Without such names there is one row that wraps. */
function gridRows(sites: Site[]): Site[][] {
  const rows = new Map<string, Site[]>();
  for (const site of sites) {
    const row = /^(.*?)[-_.]?\d+$/.exec(site.id)?.[1] ?? site.id;
    const members = rows.get(row);
    if (members) members.push(site);
    else rows.set(row, [site]);
  }
  const found = [...rows.values()];
  return found.length > 1 && found.every((row) => row.length > 1) ? found : [sites];
}

export function summaryOf(sites: readonly Site[]): string {
  const filled = sites.filter((site) => site.filled).length;
  const locked = sites.filter(isLocked).length;
  const disabled = sites.filter((site) => !site.enabled).length;
  const parts = [`${filled} of ${sites.length} filled`];
  if (locked > 0) parts.push(`${locked} locked`);
  if (disabled > 0) parts.push(`${disabled} disabled`);
  return parts.join(", ");
}

const CHANGED: Record<string, (value: Json) => string> = {
  filled: (value) => (value ? "filled" : "emptied"),
  enabled: (value) => (value ? "enabled" : "disabled"),
  content: (value) => (value === null ? "no content" : `content ${wordOf(value)}`),
  locked_run: (value) => (value === null ? "unlocked" : "locked"),
  locked_text: (value) => (value === null ? "" : `locked: ${wordOf(value)}`),
  group_name: (value) => `group ${wordOf(value)}`,
  locked_path: () => "",
  was: () => "",
};

/** `{filled: true, content: "A"}` as "filled, content A". Who did it is told beside it. */
export function describeChange(change: Json): string {
  if (change === null || typeof change !== "object" || Array.isArray(change)) return wordOf(change);
  const words = Object.entries(change).map(([field, value]) => CHANGED[field]?.(value) ?? `${field}: ${wordOf(value)}`);
  return words.filter(Boolean).join(", ");
}

export function wordOf(value: Json): string {
  if (value === null) return "none";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

export function isLocked(site: Site): boolean {
  return site.locked_by !== null || Boolean(site.locked_text);
}

/** "BUF_3: filled with SKU7, locked by a run" */
export function describeSite(site: Site): string {
  const parts = [site.filled ? (site.content ? `filled with ${site.content}` : "filled") : "empty"];
  if (site.locked_by) parts.push("locked by a run");
  else if (site.locked_text) parts.push(`locked: ${site.locked_text}`);
  if (!site.enabled) parts.push("disabled");
  return `${site.id}: ${parts.join(", ")}`;
}

/** A plan is worth drawing when most sites have a place on it. */
export function hasPlan(sites: readonly Site[]): boolean {
  const placed = sites.filter((site) => site.x !== null && site.y !== null).length;
  return placed > 0 && placed >= sites.length / 2;
}

export interface Box {
  left: number;
  top: number;
  width: number;
  height: number;
}

/** The rectangle that holds all these points with a margin, in the plan's own units. */
export function boundsOf(points: readonly Point[], margin: number): Box {
  const xs = points.map((point) => point.x);
  const ys = points.map((point) => point.y);
  const left = Math.min(...xs) - margin;
  const top = Math.min(...ys) - margin;
  return { left, top, width: Math.max(...xs) + margin - left, height: Math.max(...ys) + margin - top };
}

export interface Point {
  x: number;
  y: number;
}

/** How far each of these points is from its nearest neighbour among all; 1 when there is none. */
export function pitchOf(points: readonly Point[], all: readonly Point[]): number {
  let least = Number.POSITIVE_INFINITY;
  for (const one of points) {
    for (const other of all) {
      const distance = Math.max(Math.abs(one.x - other.x), Math.abs(one.y - other.y));
      if (distance > 0) least = Math.min(least, distance);
    }
  }
  return Number.isFinite(least) ? least : 1;
}

/** "ForkLoad at IN_1, carries C-7" */
export function doingOf(robot: Robot): string {
  const order = [robot.operation ?? (robot.target ? "drives" : ""), robot.target && `${robot.operation ? "at" : "to"} ${robot.target}`].filter(Boolean).join(" ");
  return [order, robot.carrying && `carries ${robot.carrying}`].filter(Boolean).join(", ");
}

/** Where a robot is at a moment, along the way that it announced; null when nobody knows. */
export function placeAt(robot: Robot, at: number): Point | null {
  const way = robot.waypoints;
  const next = way.findIndex(([then]) => then > at);
  const to = way[next === -1 ? way.length - 1 : next];
  if (!to) return robot.x === null || robot.y === null ? null : { x: robot.x, y: robot.y };
  const from = way[next - 1];
  if (next === -1 || !from) return { x: to[1], y: to[2] };
  const share = (at - from[0]) / (to[0] - from[0]);
  return { x: from[1] + share * (to[1] - from[1]), y: from[2] + share * (to[2] - from[2]) };
}

export function describeRobots(robots: readonly Robot[]): string {
  const busy = robots.filter((robot) => robot.run !== null).length;
  return robots.length === 0 ? "No robots." : `${plural(robots.length, "robot")}, ${busy} at work.`;
}

/** The loaded things by id, changed by the events about them. */
export function patched<T extends { id: string }>(items: readonly T[], type: "site" | "robot", batch: Batch, most: number): readonly T[] {
  const changed = batch.events.filter((event) => event.type === type);
  if (changed.length === 0) return items;
  const known = new BoundedMap<string, T>(most);
  for (const item of items) known.set(item.id, item);
  for (const { type: _type, ...fields } of changed) {
    const change = fields as unknown as T;
    known.set(change.id, { ...known.get(change.id), ...change });
  }
  return known.values();
}
