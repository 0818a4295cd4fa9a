/** Sites and robots at their places in the hall. */
import { useEffect, useMemo, useState } from "preact/hooks";
import { serverNow } from "../clock";
import { type Box, boundsOf, describeSite, doingOf, groupsOf, isLocked, pitchOf, placeAt, type Point } from "../site";
import type { Robot, Site } from "../type";

interface PlanProps {
  sites: readonly Site[];
  robots: readonly Robot[];
  chosen: string | null;
  onChoose: (id: string) => void;
}

type PlacedSite = Site & Point;

const FILL = 0.86;
/** No site is drawn larger than this many times the closest distance of all. */
const LARGEST = 1.8;
const STEP_MS = 100;
const MIN_TEXT_PX = 11;
/** The width of the drawing that the text is sized for; the SVG itself scales with the page. */
const REFERENCE_PX = 800;

export function Plan({ sites, robots, chosen, onChoose }: PlanProps) {
  const placed = sites.filter((site): site is PlacedSite => site.x !== null && site.y !== null);
  const pitch = pitchOf(placed, placed);
  const box = useMemo(() => boundsOf([...placed, ...robots.flatMap((robot) => placeAt(robot, 0) ?? [])], pitch * LARGEST), [placed.length, robots.length]);
  const groups = useMemo(() => groupsOf(placed).map((group) => planOf(group.name, group.sites as PlacedSite[], placed, pitch)), [sites]);
  return (
    <svg class="card plan" viewBox={`${box.left} ${-box.top - box.height} ${box.width} ${box.height}`} role="group" aria-label="Plan of the hall">
      {groups.map(({ name, members, size, bounds }) => (
        <g key={name}>
          <text class="plan-group" x={bounds.left} y={-bounds.top - bounds.height - pitch * 0.15} font-size={pitch * 0.5}>
            {name}
          </text>
          {members.map((site) => (
            // Text that would be too small to read is left to the title and to the panel beside the map.
            <PlanSite key={site.id} site={site} size={size} text={(size / box.width) * REFERENCE_PX > 4 * MIN_TEXT_PX} chosen={site.id === chosen} onChoose={onChoose} />
          ))}
        </g>
      ))}
      <PlanRobots robots={robots} size={pitch * LARGEST} />
    </svg>
  );
}

interface PlannedGroup {
  name: string;
  members: PlacedSite[];
  size: number;
  bounds: Box;
}

/** Sites of a group are drawn in one size: as large as their nearest neighbours allow. */
function planOf(name: string, members: PlacedSite[], all: readonly PlacedSite[], pitch: number): PlannedGroup {
  const size = FILL * Math.min(pitchOf(members, all), pitch * LARGEST);
  return { name, members, size, bounds: boundsOf(members, size / 2) };
}

interface PlanSiteProps {
  site: PlacedSite;
  size: number;
  text: boolean;
  chosen: boolean;
  onChoose: (id: string) => void;
}

function PlanSite({ site, size, text, chosen, onChoose }: PlanSiteProps) {
  const key = (event: KeyboardEvent) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    onChoose(site.id);
  };
  return (
    <g
      class="plan-site"
      transform={`translate(${site.x} ${-site.y})`}
      role="button"
      tabIndex={0}
      aria-label={describeSite(site)}
      aria-pressed={chosen}
      data-site={site.id}
      data-filled={site.filled}
      data-locked={isLocked(site)}
      data-enabled={site.enabled}
      onClick={() => onChoose(site.id)}
      onKeyDown={key}
    >
      <title>{describeSite(site)}</title>
      <rect x={-size / 2} y={-size / 2} width={size} height={size} rx={size * 0.1} stroke-width={size * (chosen ? 0.16 : 0.05)} />
      {!site.enabled && <path d={`M${-size / 2} ${-size / 2}L${size / 2} ${size / 2}`} stroke-width={size * 0.05} />}
      {text && (
        <text y={-size * 0.12} font-size={size * 0.2}>
          {site.id}
        </text>
      )}
      {text && (
        <text class="plan-content" y={size * 0.22} font-size={size * 0.2}>
          {site.filled ? (site.content ?? "filled") : ""}
        </text>
      )}
      {isLocked(site) && (
        <g transform={`translate(${size * 0.2} ${-size * 0.52}) scale(${size / 48})`}>
          <path class="plan-lock" d="M4 7h8v6.5H4zM5.500 7V5a2.500 2.500 0 0 1 5 0v2" stroke-width="1.5" />
        </g>
      )}
    </g>
  );
}

/** Robots tell their way ahead, so they can be drawn moving without asking for each step. */
function PlanRobots({ robots, size }: { robots: readonly Robot[]; size: number }) {
  const [at, setAt] = useState(serverNow());
  useEffect(() => {
    const timer = setInterval(() => document.hidden || setAt(serverNow()), STEP_MS);
    return () => clearInterval(timer);
  }, []);
  return (
    <>
      {robots.map((robot) => {
        const place = placeAt(robot, at);
        return place && <PlanRobot key={robot.id} robot={robot} place={place} size={size} />;
      })}
    </>
  );
}

function PlanRobot({ robot, place, size }: { robot: Robot; place: Point; size: number }) {
  return (
    <g class="plan-robot" data-busy={robot.run !== null} transform={`translate(${place.x} ${-place.y})`}>
      <title>{`${robot.id}: ${[robot.state.toLowerCase(), doingOf(robot)].filter(Boolean).join(", ")}`}</title>
      <circle r={size * 0.42} stroke-width={size * 0.06} />
      <text font-size={size * 0.4} dy={size * 0.14}>
        {robot.id.replace(/^.*?(\d+)$/, "$1").slice(0, 3)}
      </text>
    </g>
  );
}
