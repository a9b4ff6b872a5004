"use strict";
// Shows one source file with the kinds of test that executed each line. Everything from outside becomes text.
const data = JSON.parse(document.getElementById("data").textContent);
const viewer = document.getElementById("viewer");
const code = document.getElementById("code");

function made(tag, name, text) {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  return node;
}

function row(source, number, text) {
  const line = made("li");
  const reach = source.reach[number];
  const kinds = made("span", "kinds");
  data.kinds.forEach((kind, bit) => {
    if (reach & (1 << bit)) {
      const mark = made("i", "s" + bit);
      mark.title = kind;
      kinds.append(mark);
    }
  });
  line.append(kinds, made("code", "", text));
  if (reach === 0) line.classList.add("missed");
  const missed = source.missed[number];
  if (missed) {
    line.classList.add("partial");
    const ends = missed.map((end) => (end < 0 ? "the exit" : "line " + end));
    line.append(made("em", "", "never went on to " + ends.join(", ")));
  }
  return line;
}

function show(file, asked) {
  const source = data.files[file];
  document.getElementById("viewed").textContent = file;
  const rows = source.text.map((text, index) => row(source, index + 1, text));
  code.replaceChildren(...rows);
  viewer.showModal();
  const found = rows[asked - 1];
  if (found) {
    found.classList.add("asked");
    found.scrollIntoView({ block: "center" });
  }
}

const key = document.getElementById("key");
data.kinds.forEach((kind, bit) => {
  const item = made("span");
  item.append(made("i", "swatch s" + bit), " " + kind);
  key.append(item);
});

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-file]");
  if (link) {
    event.preventDefault();
    show(link.dataset.file, Number(link.dataset.line));
  }
});
document.getElementById("close").addEventListener("click", () => viewer.close());
document.getElementById("filter").addEventListener("input", (event) => {
  for (const line of document.querySelectorAll("table.files tbody tr")) {
    line.hidden = !line.textContent.includes(event.target.value);
  }
});
