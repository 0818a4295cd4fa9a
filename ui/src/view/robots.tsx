/** The robots: charge, where each is, and for which run it works. */
import { shortId } from "../format";
import { Icon } from "../part/icon";
import { Meter } from "../part/meter";
import { Card } from "../part/panel";
import { toRun } from "../route";
import { describeRobots } from "../site";
import type { Robot } from "../type";

export function Robots({ robots }: { robots: readonly Robot[] }) {
  if (robots.length === 0) return null;
  return (
    <Card title="Robots" note={describeRobots(robots)} class="flush robots">
      <div class="scroll">
        <table class="table">
          <thead>
            <tr>
              <th>Robot</th>
              <th>State</th>
              <th>Battery</th>
              <th>At</th>
              <th>Works for</th>
            </tr>
          </thead>
          <tbody>
            {robots.map((robot) => (
              <tr key={robot.id} data-robot={robot.id}>
                <th scope="row">{robot.id}</th>
                <td>
                  <span class="with-icon">
                    <Icon name={/charg/i.test(robot.state) ? "charging" : "robot"} size={14} />
                    {robot.state.toLowerCase()}
                  </span>
                </td>
                <td>{robot.battery === null ? <span class="quiet">unknown</span> : <Battery level={robot.battery} robot={robot.id} />}</td>
                <td>{robot.station ?? <span class="quiet">on its way</span>}</td>
                <td>
                  {robot.run === null ? (
                    <span class="quiet">nobody</span>
                  ) : (
                    <a href={toRun(robot.run, robot.path ?? undefined)} class="mono" title={robot.run}>
                      {shortId(robot.run)}
                    </a>
                  )}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </Card>
  );
}

/** Drivers tell the charge as a share or in percent. */
function Battery({ level, robot }: { level: number; robot: string }) {
  const share = level > 1 ? level / 100 : level;
  return (
    <span class={share < 0.2 ? "battery low" : "battery"}>
      <Meter value={share} bound={1} label={`Battery of ${robot}`} text={`${Math.round(100 * share)} %`} />
    </span>
  );
}
