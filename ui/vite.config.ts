import { defineConfig } from "vite";

// The server under development; `npm run dev` shows the page of these sources with that server's data.
const SERVER = "http://127.0.0.1:8350";
const proxied = ["/api", "/livez", "/readyz", "/metrics", "/openapi.json"];

export default defineConfig({
  base: "./",
  build: {
    outDir: "../src/flatwater/server/static",
    emptyOutDir: true,
    target: "es2022",
    // Operators open the page through a reverse proxy with a strict content policy: no inline scripts, no data URLs.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: { proxy: Object.fromEntries(proxied.map((path) => [path, SERVER])) },
});
