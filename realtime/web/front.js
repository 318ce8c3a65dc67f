// The front page: fills the variables of a path in. A field that is called as a property of its form hides
// that, so no property of it is asked for.
for (const form of document.querySelectorAll("form[data-path]")) {
  form.removeAttribute("hidden");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const values = new FormData(form);
    const path = form.getAttribute("data-path").replace(/\{(\w+)(?:\.\.\.)?\}/g, (_, name) =>
      values.get(name).split("/").map(encodeURIComponent).join("/"),
    );
    location.assign(path);
  });
}
