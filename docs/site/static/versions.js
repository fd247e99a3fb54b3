// Offers the other versions of the documentation, which are directories beside this one. Their list is a script,
// ../versions.js, because a page that was opened as a file may load scripts, and may fetch nothing.
document.addEventListener("DOMContentLoaded", () => {
  const root = new URL(document.documentElement.dataset.content_root, location.href);
  const list = document.createElement("script");
  list.src = new URL("../versions.js", root).href;
  list.onload = () => {
    // One in the header, and one in the menu of small screens.
    for (const label of document.querySelectorAll("label.versions")) {
      offer(label, root);
    }
    warnOfOlder(root);
  };
  document.head.append(list);
});

function offer(label, root) {
  const select = label.querySelector("select");
  for (const version of window.headcountVersions) {
    const shown = version === select.dataset.version;
    select.add(new Option(version === window.headcountLatest ? `${version} (latest)` : version, version, shown, shown));
  }
  // The page may not exist in the other version, so that a change of version begins with its first page.
  select.addEventListener("change", () => {
    location.href = new URL(`../${select.value}/docs/index.html`, root).href;
  });
  label.hidden = false;
}

function warnOfOlder(root) {
  const select = document.querySelector("label.versions select");
  if (select.dataset.version === window.headcountLatest) {
    return;
  }
  const note = document.createElement("p");
  note.className = "older";
  const link = document.createElement("a");
  link.href = new URL("../latest/docs/index.html", root).href;
  link.textContent = `The latest is ${window.headcountLatest}.`;
  note.append(`This page describes version ${select.dataset.version}. `, link);
  document.querySelector(".bd-article-container").prepend(note);
}
