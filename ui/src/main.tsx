import { render } from "preact";
import { App } from "./app";
import { startClock } from "./clock";
import { startRouter } from "./route";
import { startStatus } from "./status";
import { stream } from "./stream";
import "./style.css";
import { takeFromAddress } from "./token";

takeFromAddress();
startRouter();
startClock();
startStatus();
stream.start();
render(<App />, document.getElementById("page") as HTMLElement);
