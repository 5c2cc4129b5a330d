// The dashboards against Grafana's own schema: the types of its Foundation SDK, which are generated from it.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import test from "node:test";
import { promisify } from "node:util";
import { defaultDashboard } from "@grafana/grafana-foundation-sdk/dashboard";
import YAML from "yaml";

const home = process.env.TOLLGATE_DASHBOARDS;
assert.ok(home, "TOLLGATE_DASHBOARDS is the directory of the dashboards");
const here = import.meta.dirname;
const files = readdirSync(path.join(home, "grafana/dashboards")).filter((name) => name.endsWith(".json"));
const dashboards = files.map((file) => [file, JSON.parse(readFileSync(path.join(home, "grafana/dashboards", file), "utf8"))]);

// The SDK's enums as the words that they are in JSON, and no methods.
const SCHEMA = `
import type * as dashboard from "@grafana/grafana-foundation-sdk/dashboard";
import type { Dataquery } from "@grafana/grafana-foundation-sdk/prometheus";
import type * as stat from "@grafana/grafana-foundation-sdk/stat";
import type * as timeseries from "@grafana/grafana-foundation-sdk/timeseries";
import type * as bargauge from "@grafana/grafana-foundation-sdk/bargauge";

type Json<T> = 0 extends 1 & T ? T
  : T extends string ? (string extends T ? string : \`\${T}\`)
  : T extends number | boolean | null | undefined ? T
  : T extends (infer Item)[] ? Json<Item>[]
  : { [K in keyof T as T[K] extends Function ? never : K]: Json<T[K]> };
type Kind<Type extends string, Options, Custom> = Omit<dashboard.Panel, "type" | "targets" | "options" | "fieldConfig"> & {
  type: Type;
  targets: Dataquery[];
  options: Options;
  fieldConfig: Omit<dashboard.FieldConfigSource, "defaults"> & {
    defaults: Omit<dashboard.FieldConfig, "custom"> & { custom?: Custom };
  };
};

export type Stat = Json<Kind<"stat", stat.Options, never>>;
export type Timeseries = Json<Kind<"timeseries", timeseries.Options, timeseries.FieldConfig>>;
export type Bargauge = Json<Kind<"bargauge", bargauge.Options, never>>;
export type Row = Json<dashboard.RowPanel>;
export type Dashboard = Json<Omit<dashboard.Dashboard, "panels">>;
`;
const KINDS = { stat: "Stat", timeseries: "Timeseries", bargauge: "Bargauge", row: "Row" };

/** The dashboard as a program whose types are Grafana's: each part a literal, so that what is unknown is an error. */
function program({ panels, ...rest }) {
  const literal = (type, value) => `({}) as unknown; { const part: schema.${type} = ${JSON.stringify(value, null, 1)}; void part; }`;
  const parts = [["Dashboard", rest], ...panels.map((panel) => [KINDS[panel.type], panel])];
  return `import type * as schema from "./schema.ts";\n${parts.map(([type, value]) => literal(type, value)).join("\n")}\n`;
}

function leafPanels(dashboard) {
  return dashboard.panels.flatMap((panel) => (panel.type === "row" ? panel.panels : [panel]));
}

async function check(name, source) {
  const place = path.join(here, "schema-check", name);
  mkdirSync(place, { recursive: true });
  writeFileSync(path.join(place, "schema.ts"), SCHEMA);
  writeFileSync(path.join(place, "dashboard.ts"), source);
  const tsc = path.join(path.dirname(createRequire(import.meta.url).resolve("typescript/package.json")), "bin/tsc");
  const options = "--noEmit --strict --skipLibCheck --module nodenext --target es2022 --allowImportingTsExtensions --types".split(" ");
  try {
    await promisify(execFile)(process.execPath, [tsc, ...options, "", path.join(place, "dashboard.ts")], { cwd: place });
    return "";
  } catch (error) {
    return `${error.stdout}${error.stderr}`;
  }
}

test("there are three", () => assert.deepEqual(files.sort(), ["cost.json", "limits.json", "traffic.json"]));

for (const [file, dashboard] of dashboards) {
  test(`${file} fits Grafana's schema`, async () => {
    for (const panel of dashboard.panels) {
      assert.ok(panel.type in KINDS, `${panel.title}: the type ${panel.type}`);
    }
    assert.equal(dashboard.schemaVersion, defaultDashboard().schemaVersion);
    const told = await check(file, program(dashboard));
    assert.equal(told, "");
  });

  test(`${file}: every panel says what it shows and in which unit`, () => {
    const ids = new Set();
    for (const panel of leafPanels(dashboard)) {
      const at = `${file}: ${panel.title}`;
      assert.ok(panel.title && panel.description?.length > 20, `${at} has no description`);
      assert.ok(panel.fieldConfig.defaults.unit, `${at} has no unit`);
      assert.ok(panel.fieldConfig.defaults.thresholds.steps.length > 0, `${at} has no thresholds`);
      assert.equal(panel.datasource.uid, "${datasource}", at);
      for (const target of panel.targets) {
        assert.equal(target.datasource.uid, "${datasource}", at);
        assert.match(target.expr, /instance=~"\$instance"/, at);
      }
      assert.ok(!ids.has(panel.id), `${at}: the id ${panel.id} is there twice`);
      ids.add(panel.id);
    }
  });

  test(`${file} has a data source, models and instances to choose`, () => {
    const { datasource, model, instance } = Object.fromEntries(dashboard.templating.list.map((one) => [one.name, one]));
    assert.deepEqual([datasource.type, datasource.query], ["datasource", "prometheus"]);
    for (const variable of [model, instance]) {
      assert.deepEqual([variable.type, variable.multi, variable.includeAll], ["query", true, true], variable.name);
      assert.equal(variable.datasource.uid, "${datasource}");
    }
  });
}

test("the check notices what is wrong", async () => {
  const [, cost] = dashboards[0];
  const wrong = [
    (panel) => (panel.options.colorMode = "rainbow"),
    (panel) => (panel.fieldConfig.defaults.unti = "s"),
    (panel) => (panel.targets[0].expr = 3),
    (panel) => delete panel.options.reduceOptions,
  ];
  for (const [n, change] of wrong.entries()) {
    const changed = structuredClone(cost);
    change(changed.panels.find((panel) => panel.type === "stat"));
    assert.match(await check(`wrong-${n}`, program(changed)), /error TS/, `${change}`);
  }
});

test("compose.yaml mounts what is there, where its reader looks for it", () => {
  const read = (file) => YAML.parse(readFileSync(path.join(home, file), "utf8"), { strict: true, uniqueKeys: true });
  const { services } = read("compose.yaml");
  assert.deepEqual(Object.keys(services).sort(), ["grafana", "prometheus", "tollgate"]);
  const mounts = {};
  for (const [service, { volumes = [], build }] of Object.entries(services)) {
    for (const volume of volumes.filter((volume) => volume.startsWith("."))) {
      const [source, target, mode] = volume.split(":");
      assert.ok(existsSync(path.join(home, source)), `${service}: ${source}`);
      assert.equal(mode, "ro", volume);
      mounts[`${service}:${target}`] = path.join(home, source);
    }
    if (build) {
      assert.ok(existsSync(path.join(home, build.context, build.dockerfile)), `${service}: ${build.dockerfile}`);
    }
  }
  // Grafana reads its providers from here, and they name where the dashboards are.
  const provisioning = mounts["grafana:/etc/grafana/provisioning"];
  const [provider] = YAML.parse(readFileSync(path.join(provisioning, "dashboards/tollgate.yaml"), "utf8")).providers;
  assert.ok(statSync(mounts[`grafana:${provider.options.path}`]).isDirectory());
  const [source] = YAML.parse(readFileSync(path.join(provisioning, "datasources/prometheus.yaml"), "utf8")).datasources;
  assert.equal(new URL(source.url).hostname, "prometheus");
  assert.ok(existsSync(mounts["prometheus:/etc/prometheus/rules.yml"]));
  const scraped = YAML.parse(readFileSync(mounts["prometheus:/etc/prometheus/prometheus.yml"], "utf8"));
  const [target] = scraped.scrape_configs[0].static_configs[0].targets;
  const { environment } = services.tollgate;
  assert.equal(target, `tollgate:${environment.TOLLGATE_ADMIN.split(":")[1]}`);
  assert.deepEqual(scraped.rule_files, ["rules.yml"]);
});
