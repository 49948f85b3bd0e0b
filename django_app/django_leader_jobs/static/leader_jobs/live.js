// Keeps a page about elections up to date without reloading it.
//
// The server renders what there is to see; this fetches it about once a second while the tab is
// visible, and puts what differs in the place of what was there, node by node, so that focus, scroll
// position and open details stay. It makes no HTML: the browser parses the answer into a document of
// its own, where nothing runs, and texts are set as texts.
"use strict";
(() => {
  const EVERY = 1000;
  const EVERY_IN_TROUBLE = 3000;
  const SHARE = 4; // a page that takes long to make is asked for less often: the server is for others, too
  const MOST = 15000;
  const TIMEOUT = 6000;
  const COUNT_EVERY = matchMedia("(prefers-reduced-motion: reduce)").matches ? 1000 : 100;
  const SVG = "http://www.w3.org/2000/svg";

  const live = document.getElementById("lj-live");
  const status = document.getElementById("lj-status");
  const news = document.getElementById("lj-news");
  if (!live) return;
  const tip = document.createElement("div");
  tip.className = "lj-tip";
  tip.hidden = true;
  tip.setAttribute("aria-hidden", "true"); // what is focused says the same
  document.body.append(tip);

  // -- putting the new in the place of the old -----------------------------------------------------

  const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.getAttribute("data-key") : null);
  const alike = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && keyOf(a) === keyOf(b);

  function update(old, fresh) {
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
      return;
    }
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    const keyed = new Map([...old.children].filter(keyOf).map((child) => [keyOf(child), child]));
    let place = old.firstChild;
    for (const node of [...fresh.childNodes]) {
      const key = keyOf(node);
      const match = key ? keyed.get(key) : place;
      keyed.delete(key);
      if (!match || !alike(match, node)) {
        old.insertBefore(document.importNode(node, true), place);
        continue;
      }
      if (match === place) place = place.nextSibling;
      else old.insertBefore(match, place);
      update(match, node);
    }
    while (place) {
      const next = place.nextSibling;
      place.remove();
      place = next;
    }
  }

  function show(fresh) {
    const focused = document.activeElement;
    const before = live.dataset.news;
    enhance(fresh);
    update(live, fresh);
    if (focused && focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
    if (live.dataset.news !== before) news.textContent = live.dataset.news;
    seenAt = performance.now();
    count();
    if (pointed) point(pointed.strip, pointed.place);
  }

  // -- asking ---------------------------------------------------------------------------------------

  let seenAt = performance.now();
  let failures = 0;
  let timer = 0;
  let asking = null;

  function say(text, kind) {
    if (status.textContent !== text) status.textContent = text;
    status.className = `lj-status ${kind}`;
  }

  function ask() {
    clearTimeout(timer);
    if (asking || document.hidden) return;
    const began = performance.now();
    const request = (asking = new XMLHttpRequest());
    request.open("GET", live.dataset.url);
    request.responseType = "document"; // parsed by the browser; scripts in it do not run
    request.timeout = TIMEOUT;
    request.onloadend = () => {
      asking = null;
      const fresh = request.status === 200 && request.response ? request.response.getElementById("lj-live") : null;
      if (fresh) succeed(fresh, performance.now() - began);
      else if (request.status === 403 || request.status === 404 || request.status === 200) giveUp(request.status);
      else fail();
    };
    request.send();
  }

  function succeed(fresh, took) {
    failures = 0;
    show(fresh);
    say("Live", "lj-on");
    timer = setTimeout(ask, Math.max(live.classList.contains("lj-stale") ? EVERY_IN_TROUBLE : EVERY, SHARE * took));
  }

  function fail() {
    failures += 1;
    const wait = Math.min(MOST, EVERY * 2 ** failures);
    say(`Not live: this site does not answer; asking again in ${wait / 1000} s`, "lj-lost");
    live.classList.add("lj-stale");
    if (failures === 1) news.textContent = "This page is not live any more: the site does not answer.";
    timer = setTimeout(ask, wait);
  }

  function giveUp(code) {
    say(code === 200 ? "Not live: you are logged out; reload the page" : "Not live: reload the page", "lj-lost");
    live.classList.add("lj-stale");
    news.textContent = status.textContent;
  }

  // -- counting down ----------------------------------------------------------------------------------

  function count() {
    if (document.hidden || live.classList.contains("lj-stale")) return;
    const passed = (performance.now() - seenAt) / 1000;
    for (const lease of live.querySelectorAll(".lj-lease")) {
      const ttl = Number(lease.dataset.ttl);
      const left = Math.max(0, Number(lease.dataset.left) - passed);
      lease.querySelector(".lj-left").setAttribute("width", String(ttl > 0 ? Math.min(100, (100 * left) / ttl) : 0));
      lease.querySelector("b").textContent = `${left.toFixed(1)} s`;
      lease.classList.toggle("lj-late", left < ttl / 2);
    }
  }

  // -- strips of occurrences: one stop for the keyboard, and the arrows go through the marks ----------

  let pointed = null;
  const places = new Map(); // what was chosen last, by job

  function enhance(root) {
    for (const strip of root.querySelectorAll(".lj-strip")) {
      const marks = [...strip.querySelectorAll("g")];
      for (const mark of marks) {
        const title = mark.querySelector("title"); // the browser's own tip would come on top of ours
        mark.setAttribute("data-tip", title.textContent);
        title.remove();
      }
      const place = Math.min(places.get(strip.dataset.what) ?? marks.length - 1, marks.length - 1);
      strip.setAttribute("tabindex", "0");
      strip.setAttribute("role", "slider");
      strip.setAttribute("aria-label", `${strip.dataset.what}: ${strip.querySelector("svg").getAttribute("aria-label")}`);
      strip.setAttribute("aria-valuemin", "1");
      strip.setAttribute("aria-valuemax", String(marks.length));
      strip.setAttribute("aria-valuenow", String(place + 1));
      strip.setAttribute("aria-valuetext", marks[place].dataset.tip);
    }
  }

  function point(strip, place) {
    unpoint();
    const marks = strip.isConnected ? [...strip.querySelectorAll("g")] : [];
    if (!marks.length) return;
    place = Math.max(0, Math.min(place, marks.length - 1));
    pointed = { strip, place };
    places.set(strip.dataset.what, place);
    const mark = marks[place];
    mark.classList.add("lj-chosen");
    strip.setAttribute("aria-valuenow", String(place + 1));
    strip.setAttribute("aria-valuetext", mark.dataset.tip);
    showTip(mark, mark.dataset.tip);
  }

  function unpoint() {
    if (pointed) pointed.strip.querySelector(".lj-chosen")?.classList.remove("lj-chosen");
    pointed = null;
    tip.hidden = true;
  }

  function showTip(element, text) {
    tip.textContent = text;
    tip.hidden = false;
    const box = element.getBoundingClientRect();
    const left = Math.min(box.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
    const below = box.bottom + 8;
    const top = below + tip.offsetHeight > innerHeight ? box.top - tip.offsetHeight - 8 : below;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${top}px`;
  }

  function underPointer(event) {
    const strip = event.target instanceof Element ? event.target.closest(".lj-strip") : null;
    if (!strip) return null;
    const marks = [...strip.querySelectorAll("g")];
    const distance = (mark) => {
      const box = mark.getBoundingClientRect();
      return Math.abs(event.clientX - (box.left + box.right) / 2);
    };
    const place = marks.reduce((best, mark, n) => (distance(mark) < distance(marks[best]) ? n : best), 0);
    return { strip, place };
  }

  function onPointer(event) {
    const found = underPointer(event);
    if (found) point(found.strip, found.place);
    else if (pointed && event.type === "pointermove" && document.activeElement !== pointed.strip) unpoint();
  }

  function onKey(event) {
    if (event.key === "Escape") unpoint();
    const strip = event.target instanceof Element && event.target.matches(".lj-strip") ? event.target : null;
    if (!strip) return;
    const last = strip.querySelectorAll("g").length - 1;
    const place = Number(strip.getAttribute("aria-valuenow")) - 1;
    const to = { ArrowLeft: place - 1, ArrowDown: place - 1, ArrowRight: place + 1, ArrowUp: place + 1, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    point(strip, to);
  }

  // -- beginning --------------------------------------------------------------------------------------

  enhance(live);
  document.addEventListener("pointermove", onPointer);
  document.addEventListener("pointerdown", onPointer);
  document.addEventListener("keydown", onKey);
  document.addEventListener("focusin", (event) => {
    if (event.target.matches?.(".lj-strip")) point(event.target, Number(event.target.getAttribute("aria-valuenow")) - 1);
  });
  document.addEventListener("focusout", (event) => {
    if (event.target.matches?.(".lj-strip")) unpoint();
  });
  document.addEventListener("scroll", unpoint, { passive: true });
  document.addEventListener("visibilitychange", ask);
  setInterval(count, COUNT_EVERY);
  ask();
})();
