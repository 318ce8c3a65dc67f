// The page of a poll: how it stands, and a button for each choice.
export default function (page) {
  const question = document.createElement("h2");
  const choices = document.createElement("ul");
  choices.className = "choices";
  const drawn = new Map();
  const card = document.createElement("div");
  card.className = "card";
  card.append(question, choices);
  page.root.append(card);

  function vote(choice) {
    page.connection.send(choice).then(
      () => page.say(`You voted for ${choice}.`),
      (error) => page.say(`Not counted: ${error.message}`),
    );
  }

  function show({ question: asked, votes, open }) {
    question.textContent = document.title = open ? asked : `${asked} (closed)`;
    const most = Math.max(1, ...Object.values(votes));
    // Whoever is about to press a button keeps it: only what has changed is drawn.
    for (const [choice, count] of Object.entries(votes)) {
      const [button, bar] = drawn.get(choice) ?? add(choice);
      button.textContent = `${choice} ${count}`;
      button.disabled = !open;
      bar.max = most;
      bar.value = count;
    }
  }

  function add(choice) {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.onclick = () => vote(choice);
    const bar = document.createElement("meter");
    bar.ariaLabel = `Votes for ${choice}`;
    item.append(button, bar);
    choices.append(item);
    drawn.set(choice, [button, bar]);
    return [button, bar];
  }

  const poll = page.connect();
  poll.addEventListener("message", ({ detail }) => detail.event === "standing" && show(detail.data));
}
