/** The page of a channel that has none of its own: say what you like, and see on the wire what comes. */
import { make } from "./dom.js";

/** A field with its label. */
function field(label, input) {
  return [input, make("label", "", label, input)];
}

function choice(label, options) {
  const select = make("select", "", ...Object.entries(options).map(([value, text]) => new Option(text, value)));
  return field(label, select);
}

export default function (page) {
  const { transports, hears, presence } = page.facts;
  const serves = (transport) => transports.includes(transport);
  const streams = serves("websocket") || serves("sse");

  // Where people have names, who has none yet reads: over a WebSocket the first thing said may be the name.
  function open(who) {
    if (!streams) return;
    const reads = !who && presence !== "off" && serves("sse") && serves("post");
    page.connect({ name: who || undefined, ...(reads && { transport: "sse" }) });
  }

  open();
  if (!hears || !(serves("websocket") || serves("post"))) {
    const text = "This channel takes no messages. What it says stands below, as it comes.";
    page.root.append(make("p", "card muted", text));
    return;
  }

  const [message, saying] = field("Message", make("textarea"));
  const [name, naming] = field("Your name", make("input"));
  const [kind, reading] = choice("Format", { text: "Text", json: "JSON" });
  const [event, calling] = field("Event", make("input"));
  const [way, going] = choice("Send over", {
    ...(streams && { connection: "This connection" }),
    ...(serves("post") && { post: "A POST" }),
  });
  const told = make("p", "small");
  told.ariaLive = "polite";
  const send = make("button", "primary", "Send");
  const form = make("form", "card stack tester");
  Object.assign(message, { rows: 1, required: true, autocomplete: "off" });
  Object.assign(name, { autocomplete: "off", placeholder: "nobody" });
  Object.assign(event, { autocomplete: "off", placeholder: "message" });
  naming.hidden = presence === "off";
  going.hidden = way.options.length < 2;
  form.append(
    make("div", "say", saying, send),
    make("div", "fields", naming, reading, calling, going),
    told,
  );
  page.root.append(form);

  function tell(text, wrong = false) {
    told.className = wrong ? "small bad" : "small muted";
    told.textContent = text;
    message.ariaInvalid = String(wrong);
  }

  name.onchange = () => open(name.value.trim());
  message.onkeydown = (pressed) => {
    if (pressed.key !== "Enter" || pressed.shiftKey || pressed.isComposing) return;
    pressed.preventDefault();
    form.requestSubmit();
  };
  form.onsubmit = async (submitted) => {
    submitted.preventDefault();
    const said = message.value;
    try {
      const data = kind.value === "json" ? JSON.parse(said) : said;
      const options = { event: event.value.trim() || "message" };
      const sending = way.value === "post" ? page.post(data, options) : page.connection.send(data, options);
      const id = await sending;
      tell(id ? `Published as ${id}.` : "Taken. Nothing was published: an answer to you alone stands below.");
      if (message.value === said) message.value = "";
    } catch (error) {
      tell(error instanceof SyntaxError ? `This is no JSON: ${error.message}` : `Not sent: ${error.message}`, true);
    }
  };
}
