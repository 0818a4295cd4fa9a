/** The robots: charge, where each is, and for which run it works. */
import { shortId } from "../format";
import { Icon } from "../part/icon";
import { Meter } from "../part/meter";
import { Card } from "../part/panel";
import { toRun } from "../route";
import { describeRobots, doingOf } from "../site";
import type { Robot } from "../type";

const LOW = 0.2;

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
              <th>Does</th>
              <th>For run</th>
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
                  {robot.error && <span class="cut bad">{robot.error}</span>}
                </td>
                <td>{robot.battery === null ? <span class="quiet">unknown</span> : <Battery level={robot.battery} robot={robot.id} />}</td>
                <td>{robot.station ?? <span class="quiet">on its way</span>}</td>
                <td>{doingOf(robot) || <span class="quiet">nothing</span>}</td>
                <td>
                  {robot.run === null ? (
                    <span class="quiet">none</span>
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

function Battery({ level, robot }: { level: number; robot: string }) {
  return (
    <span class={level < LOW ? "battery low" : "battery"}>
      <Meter value={level} bound={1} label={`Battery of ${robot}`} text={`${Math.round(100 * level)} %`} />
    </span>
  );
}
