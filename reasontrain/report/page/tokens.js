// Shows the numbers of a token under its text, on hover, tap and arrow keys, also for screen readers. The page works without it.
for (const text of document.querySelectorAll(".tokens")) {
  const tokens = text.children, out = text.nextElementSibling, rest = out.textContent;
  let at = -1;
  const show = (i) => {
    if (tokens[at]) tokens[at].classList.remove("on");
    at = i;
    if (!tokens[at]) { out.textContent = rest; return; }
    tokens[at].classList.add("on");
    out.textContent = "“" + tokens[at].textContent.replace("\n", "") + "”  " + tokens[at].title;
  };
  text.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10 }[event.key];
    if (event.key === "Escape") show(-1);
    if (!by) return;
    event.preventDefault();
    show(Math.max(0, Math.min(tokens.length - 1, at + by)));
    tokens[at].scrollIntoView({ block: "nearest" });
  });
  const point = (event) => { if (event.target !== text) show([...tokens].indexOf(event.target)); };
  text.addEventListener("pointerover", point);
  text.addEventListener("pointerdown", point);
}
