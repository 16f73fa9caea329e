// The page keeps itself up to date: each part is fetched anew, as the server draws it, and what has changed in it is
// changed here, element by element. So nothing flickers, nothing is scrolled away, and who has the focus keeps it.
"use strict";

(() => {
  const page = document.getElementById("prefork");
  const parts = [...document.querySelectorAll("#prefork [data-live]")];
  if (!page || !parts.length) return;

  const find = (id) => document.getElementById(id);
  const HEADERS = {"X-Prefork-Part": "1"};
  // Milliseconds: from when on it is said that nobody answers, and from when on nobody is waited for.
  const SILENCE = 3000;
  const PATIENCE = 60000;

  // -- change what has changed ---------------------------------------------------------------------------------------

  const key = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.getAttribute("data-key") : null);
  const alike = (one, other) => one.nodeType === other.nodeType && one.nodeName === other.nodeName && key(one) === key(other);

  function become(old, fresh) {
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
      return;
    }
    for (const {name, value} of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    // What is unfolded was unfolded by the reader.
    for (const {name} of [...old.attributes]) if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
    becomeChildren(old, fresh);
  }

  function becomeChildren(old, fresh) {
    const known = new Map([...old.children].filter(key).map((child) => [key(child), child]));
    let here = old.firstChild;
    for (const next of [...fresh.childNodes]) {
      let same = key(next) ? known.get(key(next)) : here;
      if (!same || !alike(same, next)) {
        old.insertBefore(document.importNode(next, true), here);
        continue;
      }
      if (same === here) here = here.nextSibling;
      else old.insertBefore(same, here);
      become(same, next);
    }
    while (here) {
      const gone = here;
      here = here.nextSibling;
      gone.remove();
    }
  }

  const parsed = (text) => new DOMParser().parseFromString(text, "text/html").body;

  // -- ask -----------------------------------------------------------------------------------------------------------

  class SignedOut extends Error {}

  async function ask(url, options = {}) {
    const answer = await fetch(url, {
      headers: HEADERS,
      cache: "no-store",
      redirect: "manual",
      signal: AbortSignal.timeout(PATIENCE),
      ...options,
    });
    if (answer.type === "opaqueredirect" || answer.status === 403) throw new SignedOut();
    if (!answer.ok) throw new Error(`The server answered ${answer.status}.`);
    return answer.text();
  }

  const trouble = find("pf-trouble");

  function complain(text) {
    trouble.hidden = !text;
    if (trouble.textContent !== text) trouble.textContent = text;
    page.classList.toggle("pf-stale", Boolean(text));
  }

  // -- keep up -------------------------------------------------------------------------------------------------------

  const live = find("pf-live");
  let running = true;

  const isOn = () => running && !document.hidden;
  const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

  async function refresh(part) {
    const began = Date.now();
    const clock = setInterval(() => {
      const waited = Date.now() - began;
      if (waited < SILENCE || !isOn()) return;
      complain(`No answer for ${Math.round(waited / 1000)} s: every worker is busy, or the server is gone. What you see is older.`);
    }, 500);
    try {
      const fresh = parsed(await ask(part.dataset.live));
      if (!running) return;
      becomeChildren(part, fresh);
      complain("");
      tell();
    } catch (error) {
      if (error instanceof SignedOut) {
        stop();
        complain("You are not signed in any more, or may not look at this any more: load the page again.");
      } else {
        complain(`No answer: ${error.message} What you see is older; it is tried again.`);
      }
    } finally {
      clearInterval(clock);
    }
  }

  // For those who hear the page: not each second, but when the server's state is another.
  let state = find("pf-now").querySelector("[data-state]")?.dataset.state;

  function tell() {
    const now = find("pf-now").querySelector("[data-state]");
    if (!now || now.dataset.state === state) return;
    state = now.dataset.state;
    find("pf-told").textContent = now.dataset.tell;
  }

  async function keepUp(part) {
    for (;;) {
      await pause(Number(part.dataset.every));
      if (isOn()) await refresh(part);
    }
  }

  function show() {
    live.classList.toggle("pf-on", running);
    live.querySelector("[data-word]").textContent = running ? "Live" : "Paused";
    live.querySelector("[data-more]").textContent = running ? ": pause" : ": go on";
  }

  function stop() {
    running = false;
    show();
  }

  live.addEventListener("click", () => {
    running = !running;
    show();
    if (running) parts.forEach(refresh);
  });
  document.addEventListener("visibilitychange", () => {
    if (isOn()) parts.forEach(refresh);
  });
  live.hidden = false;
  show();
  parts.forEach(keepUp);

  // -- look into a worker --------------------------------------------------------------------------------------------

  const dialog = find("pf-dialog");
  const answer = find("pf-answer");
  let asked = "";

  async function look() {
    const url = asked;
    let fresh;
    page.classList.add("pf-asking");
    try {
      fresh = parsed(await ask(url, {method: "POST", body: new FormData(find("pf-ask"))}));
    } catch (error) {
      const title = document.createElement("h2");
      title.id = "pf-stacks-title";
      title.textContent = "No stack";
      const text = document.createElement("p");
      text.className = "pf-trouble";
      text.textContent = error instanceof SignedOut ? "You may not look at this any more: load the page again." : error.message;
      fresh = document.createElement("div");
      fresh.append(title, text);
    } finally {
      page.classList.remove("pf-asking");
    }
    // Somebody may have asked for another one meanwhile.
    if (url !== asked) return;
    answer.replaceChildren(...fresh.childNodes);
    if (!dialog.open) dialog.showModal();
  }

  page.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.hasAttribute("data-stacks")) {
      event.preventDefault();
      asked = button.formAction;
      look();
    } else if (button.dataset.do === "again") {
      look();
    } else if (button.dataset.do === "copy") {
      navigator.clipboard.writeText(written()).catch(() => {});
    } else if (button.dataset.do === "close") {
      button.closest("dialog").close();
    } else if (button.dataset.do === "reload") {
      find("pf-reload").submit();
    }
  });

  // Browsers have one for pages that came over HTTPS, and for this machine's own.
  if (!navigator.clipboard) page.querySelector("[data-do=copy]").hidden = true;

  // As text: a fold's title, and its calls.
  function written() {
    const lines = [answer.querySelector("h2").textContent];
    for (const thread of answer.querySelectorAll(".pf-thread")) {
      lines.push("", thread.querySelector("summary").textContent.trim());
      for (const call of thread.querySelectorAll("li")) lines.push(`  ${call.textContent.trim().replace(/\s+/g, " ")}`);
    }
    return `${lines.join("\n")}\n`;
  }

  // A click beside a dialog closes it.
  for (const each of page.querySelectorAll("dialog"))
    each.addEventListener("click", (event) => event.target === each && each.close());

  find("pf-reload")?.addEventListener("submit", (event) => {
    event.preventDefault();
    find("pf-sure").showModal();
  });
})();
