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
  const list = make("div");
  Object.assign(list, { role: "tablist", ariaLabel: "Language" });
  const tabs = Object.entries({ Shell: curl.textContent, ...uses(facts) }).map(([name, text]) => {
    const tab = make("button", "", name);
    const code = make("pre", "", text);
    Object.assign(tab, { id: `tab-${name}`, role: "tab" });
    Object.assign(code, { id: `code-${name}`, role: "tabpanel", tabIndex: 0 });
    tab.setAttribute("aria-controls", code.id);
    code.setAttribute("aria-labelledby", tab.id);
    list.append(tab);
    return [tab, code];
  });
  let chosen;
  function select(index) {
    chosen = (index + tabs.length) % tabs.length;
    tabs.forEach(([tab, code], at) => {
      code.hidden = at !== chosen;
      tab.ariaSelected = String(at === chosen);
      tab.tabIndex = at === chosen ? 0 : -1;
    });
  }
  tabs.forEach(([tab], index) => (tab.onclick = () => select(index)));
  list.onkeydown = ({ key }) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[key];
    if (!step) return;
    select(chosen + step);
    tabs[chosen][0].focus();
  };
  const copy = make("button", "small", "Copy");
  copy.onclick = async () => {
    const code = tabs[chosen][1];
    try {
      await navigator.clipboard.writeText(code.textContent);
      copy.textContent = "Copied";
    } catch {
      // A page that came without TLS may not: it is selected, to be copied by hand.
      getSelection().selectAllChildren(code);
      copy.textContent = "Selected";
    }
    setTimeout(() => (copy.textContent = "Copy"), 2000);
  };
  select(0);
  curl.replaceWith(make("div", "bar", list, copy), ...tabs.map(([, code]) => code));
}
