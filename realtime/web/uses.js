/** The same channel from elsewhere, to copy: curl as the server has written it, JavaScript, Python. */
import { make } from "./dom.js";

/** The programs, by what the channel serves. */
export function uses({ url, prefix, transports, hears, presence }) {
  const serves = (transport) => transports.includes(transport);
  const streams = serves("websocket") || serves("sse");
  if (!streams) return {};
  const text = JSON.stringify;
  const says = hears && (serves("websocket") || serves("post"));
  const named = presence !== "off" && says;
  const options = [...(named ? ['name: "script"'] : []), ...(serves("websocket") ? [] : ['transport: "sse"'])];
  const whole = options.length ? `, { ${options.join(", ")} }` : "";
  const there = serves("websocket") ? url.replace("http", "ws") : url;
  return {
    JavaScript: [
      `import { connect } from ${text(`${new URL(url).origin}${prefix}/-/realtime.js`)};`,
      "",
      `const channel = connect(${text(url)}${whole});`,
      'channel.addEventListener("message", ({ detail }) => {',
      "  console.log(detail.event, detail.data);",
      "});",
      ...(says ? ['await channel.send("hi");'] : []),
    ].join("\n"),
    Python: [
      "import asyncio",
      "",
      "from realtime import connect",
      "",
      "",
      "async def main():",
      `    async with connect(${text(there)}${named ? ', name="python"' : ""}) as channel:`,
      ...(says ? ['        await channel.send("hi")'] : []),
      "        async for message in channel:",
      "            print(message.event, message.data)",
      "",
      "",
      "asyncio.run(main())",
    ].join("\n"),
  };
}

/** Make tabs of them, in the place of what stood there for who has no scripts. */
export function show(facts) {
  const curl = document.getElementById("curl");
  const all = { curl: curl.textContent, ...uses(facts) };
  const list = make("div");
  list.role = "tablist";
  list.ariaLabel = "Language";
  const panels = Object.entries(all).map(([name, text]) => {
    const tab = make("button", "", name);
    Object.assign(tab, { id: `tab-${name}`, role: "tab", type: "button" });
    const code = make("pre", "", text);
    code.tabIndex = 0;
    code.ariaLabel = name;
    const copy = make("button", "small", "Copy");
    copy.onclick = async () => {
      await navigator.clipboard.writeText(text);
      copy.textContent = "Copied";
      setTimeout(() => (copy.textContent = "Copy"), 2000);
    };
    const panel = make("div", "", code, copy);
    Object.assign(panel, { id: `panel-${name}`, role: "tabpanel" });
    panel.setAttribute("aria-labelledby", tab.id);
    tab.setAttribute("aria-controls", panel.id);
    list.append(tab);
    return [tab, panel];
  });
  function select(chosen) {
    panels.forEach(([tab, panel], index) => {
      panel.hidden = index !== chosen;
      tab.ariaSelected = String(index === chosen);
      tab.tabIndex = index === chosen ? 0 : -1;
    });
  }
  panels.forEach(([tab], index) => {
    tab.onclick = () => select(index);
    tab.onkeydown = ({ key }) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[key];
      if (!step) return;
      const next = (index + step + panels.length) % panels.length;
      select(next);
      panels[next][0].focus();
    };
  });
  select(0);
  curl.replaceWith(list, ...panels.map(([, panel]) => panel));
}
