// The front page: fills the variables of a path in.
for (const form of document.querySelectorAll("form[data-path]")) {
  form.hidden = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const path = form.dataset.path.replace(/\{(\w+)(?:\.\.\.)?\}/g, (_, name) =>
      form.elements.namedItem(name).value.split("/").map(encodeURIComponent).join("/"),
    );
    location.assign(path);
  });
}
