// Copied into the head of the page by page.html.j2. Without it everything can be read, but nothing filters, sorts or enlarges.
"use strict";
const root = document.documentElement;
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
root.classList.add("js");
const remembered = (change) => { try { return change(localStorage); } catch { return null; } };  // pages in files may not store
root.dataset.theme = remembered((store) => store.getItem("leapwarp-theme")) ?? "";

function contents() {
  const nav = document.querySelector("nav"), list = nav.querySelector("details"), here = document.getElementById("here");
  const wide = matchMedia("(min-width: 64rem)"), links = all("li a", nav);
  const fit = () => { list.open = wide.matches; };
  fit();
  wide.addEventListener("change", fit);
  links.forEach((link) => link.addEventListener("click", fit));
  const mark = () => {
    const past = (link) => document.getElementById(link.hash.slice(1)).getBoundingClientRect().top < innerHeight / 3;
    const end = innerHeight + scrollY > root.scrollHeight - 4;  // where the last section may be too short to rise
    const current = end ? links.at(-1) : links.findLast(past);
    links.forEach((link) => link === current || link.removeAttribute("aria-current"));
    if (current?.ariaCurrent) return;
    current?.setAttribute("aria-current", "true");
    here.textContent = current ? `: ${current.textContent}` : "";
    if (wide.matches) current?.scrollIntoView({ block: "nearest", behavior: "instant" });
  };
  mark();
  addEventListener("scroll", mark, { passive: true });
}

function theme() {
  const button = document.getElementById("theme"), dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";
  const show = () => button.setAttribute("aria-pressed", isDark());
  button.hidden = false;
  show();
  dark.addEventListener("change", show);
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    remembered((store) => store.setItem("leapwarp-theme", root.dataset.theme));
    show();
  });
}

function filter() {
  const bar = document.getElementById("filter"), claims = all("details.claim");
  if (!bar) return;
  const buttons = all("button", bar), said = bar.querySelector("[role=status]");
  const apply = (verdict) => {
    buttons.forEach((button) => button.setAttribute("aria-pressed", button.value === verdict));
    claims.forEach((claim) => { claim.hidden = Boolean(verdict) && claim.dataset.verdict !== verdict; });
    all(".claims").forEach((group) => { group.hidden = !group.querySelector(".claim:not([hidden])"); });
    said.textContent = `${claims.filter((claim) => !claim.hidden).length} of ${claims.length} claims shown`;
  };
  const reveal = () => {  // open the claim that an address or a link names
    const claim = claims.find((each) => each.id === location.hash.slice(1));
    if (!claim) return;
    if (claim.hidden) apply("");
    claim.open = true;
    claim.scrollIntoView();
  };
  bar.hidden = false;
  buttons.forEach((button) => button.addEventListener("click", () => apply(button.ariaPressed === "true" ? "" : button.value)));
  addEventListener("hashchange", reveal);
  apply("");
  reveal();
}

// A number at the start of a cell ("34.2 ± 1.8", "−3", "1.2e-04"). A missing value is neither a number nor a word.
function value(row, column) {
  const cell = row.cells[column], text = (cell.querySelector(".ours") ?? cell).textContent.trim();
  const number = text.replace("−", "-").match(/^[+-]?(\d[\d,]*\.?\d*|\.\d+)(e[+-]?\d+)?/i);
  return { text: text === "–" ? "" : text, number: number ? Number(number[0].replaceAll(",", "")) : NaN };
}

function sortable(table) {
  const body = table.tBodies[0], given = [...body.rows], heads = all("thead th", table);
  if (given.length < 2) return;
  heads.forEach((head, column) => {
    if (!head.textContent.trim() || !given.some((row) => value(row, column).text)) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const next = { ascending: "descending", descending: null }[head.ariaSort] ?? (head.ariaSort ? null : "ascending");
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      if (next) head.setAttribute("aria-sort", next);
      const cells = new Map(given.map((row) => [row, value(row, column)])), present = [...cells.values()].filter((each) => each.text);
      const numeric = 2 * present.filter((each) => !Number.isNaN(each.number)).length > present.length;
      const missing = (each) => (numeric ? Number.isNaN(each.number) : !each.text);
      const sign = next === "descending" ? -1 : 1;
      const compare = (one, other) => {
        const [a, b] = [cells.get(one), cells.get(other)];
        if (missing(a) || missing(b)) return missing(a) - missing(b);
        return sign * (numeric ? a.number - b.number : a.text.localeCompare(b.text));
      };
      body.append(...(next ? given.toSorted(compare) : given));
    });
  });
}

function figures() {
  const dialog = document.querySelector("dialog"), large = dialog.querySelector("img"), text = dialog.querySelector("p");
  all("figure").forEach((figure) => {
    const image = figure.querySelector("img"), button = figure.querySelector("button");
    const enlarge = () => {
      large.src = image.src;
      large.alt = image.alt;
      text.textContent = figure.querySelector("figcaption p").textContent;
      dialog.onclose = () => button.focus();
      dialog.showModal();
    };
    button.hidden = false;
    button.addEventListener("click", enlarge);
    image.addEventListener("click", enlarge);
  });
}

document.addEventListener("DOMContentLoaded", () => {
  contents();
  theme();
  filter();
  all("table").forEach(sortable);
  figures();
  // The tabulator key stops only at parts that scroll.
  const watch = new ResizeObserver((entries) => entries.forEach(({ target }) => {
    target.toggleAttribute("tabindex", target.scrollWidth > target.clientWidth);
    if (target.hasAttribute("tabindex")) target.tabIndex = 0;
  }));
  all(".scroll").forEach((each) => watch.observe(each));
});
let closed = [];  // in print everything is unfolded
addEventListener("beforeprint", () => { closed = all("main details:not([open])"); closed.forEach((each) => { each.open = true; }); });
addEventListener("afterprint", () => closed.forEach((each) => { each.open = false; }));
