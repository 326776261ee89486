// The register of one meeting: head, counters, roster, feed. One element, fed with small patches:
// a patch is applied only when it follows on what is here; otherwise the page asks for everything again.

const STATUSES = [
  ["present", "P", "Present"], ["late", "L", "Late"], ["absent", "A", "Absent"],
  ["excused", "E", "Excused"], ["remote", "R", "Remote"], ["left_early", "X", "Left early"],
];
const WORDS = Object.fromEntries(STATUSES.map(([s, , w]) => [s, w]));
const LETTERS = Object.fromEntries(STATUSES.map(([s, l]) => [s, l]));
const STATES = {
  scheduled: "Not opened yet", open: "Open", closing: "Closing", closed: "Closed", locked: "Locked", cancelled: "Cancelled",
};
const ATTENDED = ["present", "late", "remote", "left_early"];
const MAX_FEED = 60;

// UUIDv7 (RFC 9562 §5.7): made where the click is made, so that a repeated send is recognised.
const newId = () => {
  const b = crypto.getRandomValues(new Uint8Array(16));
  let t = Date.now();
  for (let i = 5; i >= 0; i--) { b[i] = t % 256; t = Math.floor(t / 256); }
  b[6] = (b[6] & 0x0f) | 0x70;
  b[8] = (b[8] & 0x3f) | 0x80;
  const h = [...b].map((x) => x.toString(16).padStart(2, "0")).join("");
  return [h.slice(0, 8), h.slice(8, 12), h.slice(12, 16), h.slice(16, 20), h.slice(20)].join("-");
};
const fold = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();

export default {
  props: { initial: Object, zone: String },
  template: `
<div class="r">
  <section class="m-card r-head" aria-labelledby="r-title">
    <div class="r-what">
      <p class="m-soft m-small">{{ facts.code }}<template v-if="facts.room"> · Room {{ facts.room }}</template> · {{ facts.day }}, {{ facts.when }}</p>
      <h1 id="r-title">{{ facts.title }}</h1>
      <p class="m-soft m-small">{{ facts.staff.join(", ") }}</p>
    </div>
    <div class="r-actions">
      <span class="r-state" :data-state="facts.state" data-testid="meeting-state">{{ stateText }}</span>
      <button v-if="facts.state === 'scheduled'" class="m-primary" data-testid="open-meeting" @click="act({type: 'open'})">Open class</button>
      <template v-if="facts.state === 'open'">
        <a class="m-quiet" :href="'/meeting/' + facts.id + '/projector'" target="_blank" data-testid="projector">Projector ↗</a>
        <button class="m-primary m-danger" data-testid="close-meeting" @click="ask('close')">Close class</button>
      </template>
      <button v-if="['closing', 'closed'].includes(facts.state)" class="m-quiet" data-testid="reopen-meeting" @click="ask('reopen')">Reopen …</button>
    </div>
    <p v-if="facts.state === 'cancelled'" class="r-note">This class was cancelled. {{ facts.cancelReason }}</p>
    <p v-if="['closing', 'closed', 'locked'].includes(facts.state)" class="r-note">
      Closed at {{ facts.closed }}. {{ facts.taken ? "The register is taken." : "It closed by itself: nobody has confirmed this register." }}
      <template v-if="facts.state === 'closing'">Check-ins that phones made before that may still arrive for a moment.</template>
    </p>
    <dl class="r-counts" aria-label="Counters">
      <div class="r-here"><dt>Here</dt><dd class="m-num" data-testid="count-here"><b>{{ here }}</b> / {{ rows.length }}</dd></div>
      <div><dt>Late</dt><dd class="m-num" data-testid="count-late">{{ count("late") }}</dd></div>
      <div><dt>Absent</dt><dd class="m-num" data-testid="count-absent">{{ count("absent") }}</dd></div>
      <div v-if="count('excused')"><dt>Excused</dt><dd class="m-num" data-testid="count-excused">{{ count("excused") }}</dd></div>
      <div><dt>Not marked</dt><dd class="m-num" data-testid="count-unmarked">{{ unmarked.length }}</dd></div>
      <div v-if="open_questions" class="r-ask"><dt>To decide</dt><dd class="m-num">{{ open_questions }}</dd></div>
    </dl>
    <div class="r-bar" :style="{'--here': rows.length ? here / rows.length : 0}" aria-hidden="true"></div>
  </section>

  <div class="r-body">
    <section class="m-card r-roster" aria-labelledby="r-roster-title">
      <div class="r-tools">
        <h2 id="r-roster-title">Students</h2>
        <label class="r-search"><span class="m-out-of-sight">Search a student</span>
          <input type="search" v-model="search" placeholder="Search" autocomplete="off" data-testid="search"></label>
        <button class="m-quiet" :aria-pressed="exceptionsFirst" @click="exceptionsFirst = !exceptionsFirst" data-testid="sort">{{ exceptionsFirst ? "By name" : "Open questions first" }}</button>
        <button class="m-quiet" data-testid="undo" :disabled="!undo.last" @click="takeBack" :title="undo.label">Undo<template v-if="undo.label">: {{ undo.label }}</template></button>
        <button v-if="mayMark" class="m-primary r-rest" data-testid="mark-rest" :disabled="!unmarked.length" @click="ask('rest')">Mark the rest present</button>
      </div>
      <div class="r-news">
        <p class="r-said" role="status" aria-live="polite" :data-tone="said.tone">{{ said.text }}</p>
        <p v-if="!said.text && mayMark && rows.length" class="r-keys m-soft m-small">Tab to a student: P L A E R X mark, arrow keys move on.</p>
      </div>
      <ul class="r-list">
        <li v-for="r in shown" :key="r.id" :data-testid="'roster-row-' + r.id" :data-status="r.status || 'unmarked'" tabindex="0"
            class="r-row" :class="{'r-fresh': fresh[r.id]}" :aria-label="r.name + ', ' + wordOf(r)" :aria-keyshortcuts="keys" @keydown.self="onKey($event, r)">
          <div class="r-who">
            <span class="r-name" dir="auto">{{ r.name }}</span>
            <span class="r-how m-soft m-small">{{ how(r) }}</span>
          </div>
          <span :class="'m-chip m-' + (r.status || 'unmarked')"><b aria-hidden="true">{{ letterOf(r) }}</b>{{ wordOf(r) }}</span>
          <div class="r-marks" role="group" :aria-label="'Mark ' + r.name" v-if="mayMark">
            <button v-for="[s, letter, word] in statuses" :key="s" :data-testid="'mark-' + s" :aria-label="word + ': ' + r.name" :title="word"
                    :aria-pressed="r.status === s" :class="'r-mark m-' + s" @click="mark(r, s)">{{ letter }}</button>
          </div>
          <div v-if="r.contested && r.proposal" class="r-contested">
            <span><b>Two entries disagree.</b> {{ rival(r) }}</span>
            <span class="r-choices" v-if="mayMark">
              <button class="m-primary" :data-testid="'contested-' + r.id" @click="mark(r, r.proposal.status, r.proposal.minutes)">Accept {{ words[r.proposal.status].toLowerCase() }}</button>
              <button class="m-quiet" :data-testid="'keep-' + r.id" @click="mark(r, r.status, r.minutes)">Keep {{ wordOf(r).toLowerCase() }}</button>
            </span>
          </div>
          <div v-if="r.unverified" class="r-contested">
            <span><b>Checked in without proof.</b> Is this student here?</span>
            <span class="r-choices" v-if="mayMark"><button class="m-quiet" @click="mark(r, 'present')">Yes, present</button></span>
          </div>
        </li>
      </ul>
      <p v-if="!rows.length" class="r-empty m-soft">Nobody is on this class's list at this time. An admin can add students.</p>
      <p v-else-if="!shown.length" class="r-empty m-soft">No student is called that.</p>
    </section>

    <div class="r-side">
      <slot></slot>
      <section class="m-card r-feed" aria-labelledby="r-feed-title">
        <h2 id="r-feed-title">What happens</h2>
        <p v-if="!feed.length" class="m-soft r-empty">Arrivals and failed tries appear here as they happen.</p>
        <ol class="r-lines" data-testid="feed">
          <li v-for="l in feed" :key="l.id" :class="'r-line r-line-' + l.kind" :data-kind="l.kind" :data-code="l.code || ''">
            <time class="m-num m-soft">{{ clock(l.atMs) }}</time>
            <span><b v-if="l.name" dir="auto">{{ l.name }}</b> {{ l.text }}<span v-if="l.hint" class="r-hint"> {{ l.hint }}</span></span>
          </li>
        </ol>
      </section>
    </div>
  </div>

  <dialog ref="dialog" class="r-dialog" @close="asked = ''" aria-labelledby="r-ask-title">
    <form method="dialog" @submit.prevent="confirm">
      <template v-if="asked === 'rest'">
        <h2 id="r-ask-title">Mark {{ unmarked.length }} present?</h2>
        <p>The {{ rows.length - unmarked.length }} who have a mark stay as they are.</p>
      </template>
      <template v-if="asked === 'close'">
        <h2 id="r-ask-title">Close this class?</h2>
        <p v-if="unmarked.length"><b>{{ unmarked.length }}</b> not marked {{ unmarked.length === 1 ? "becomes" : "become" }} absent. Nobody else changes.</p>
        <p v-else>Everybody has a mark; nobody changes.</p>
        <p v-if="contested"><b>{{ contested }}</b> still to decide: what the register shows now stands until then.</p>
      </template>
      <template v-if="asked === 'reopen'">
        <h2 id="r-ask-title">Reopen this class?</h2>
        <p>Absences that came from closing are taken back until you close again.</p>
        <label class="r-reason">Why?<input v-model="reason" required maxlength="500" data-testid="reopen-reason" autocomplete="off"></label>
      </template>
      <div class="r-choices">
        <button type="button" class="m-quiet" @click="$refs.dialog.close()">Not now</button>
        <button type="submit" class="m-primary" :class="{'m-danger': asked === 'close'}" data-testid="confirm">{{ {rest: "Mark present", close: "Close class", reopen: "Reopen"}[asked] }}</button>
      </div>
    </form>
  </dialog>
</div>`,
  data() {
    return {
      seq: 0, facts: {staff: [], state: "scheduled"}, rows: [], feed: [], search: "", exceptionsFirst: false,
      asked: "", reason: "", undo: {last: null, label: ""}, said: {text: "", tone: ""}, fresh: {}, statuses: STATUSES, words: WORDS,
      keys: STATUSES.map(([, letter]) => letter).join(" ") + " ArrowDown ArrowUp",
    };
  },
  created() { this.reset(this.initial); },
  mounted() {
    // The page is live only when the server has said that nothing is missing here.
    this.onConnected = (e) => { e.preventDefault(); this.resync(); };
    window.addEventListener("muster:connected", this.onConnected);
  },
  unmounted() { window.removeEventListener("muster:connected", this.onConnected); },
  computed: {
    mayMark() { return ["open", "closing", "closed", "scheduled"].includes(this.facts.state); },
    here() { return this.rows.filter((r) => ATTENDED.includes(r.status)).length; },
    unmarked() { return this.rows.filter((r) => !r.status); },
    open_questions() { return this.rows.filter((r) => r.contested || r.unverified).length; },
    contested() { return this.rows.filter((r) => r.contested).length; },
    stateText() { return STATES[this.facts.state] || this.facts.state; },
    shown() {
      const wanted = fold(this.search.trim());
      const found = wanted ? this.rows.filter((r) => fold(r.name).includes(wanted)) : this.rows.slice();
      if (!this.exceptionsFirst) return found;
      const rank = (r) => (r.contested || r.unverified ? 0 : !r.status ? 1 : r.status === "absent" ? 2 : r.status === "late" ? 3 : 4);
      return found.map((r, i) => [rank(r), i, r]).sort((a, b) => a[0] - b[0] || a[1] - b[1]).map((t) => t[2]);
    },
  },
  methods: {
    // -- from the server
    reset(all) {
      this.seq = all.seq; this.facts = all.facts; this.rows = all.rows;
      this.feed = all.feed.slice().reverse(); this.fresh = {};
    },
    resync() { this.$emit("resync", {seq: this.seq}); },
    synced() { window.dispatchEvent(new Event("muster:synced")); },
    apply(patch) {
      if (patch.snapshot) return this.reset(patch.snapshot);
      if (patch.facts) this.facts = patch.facts;
      if (patch.seq !== undefined) {
        if (patch.seq <= this.seq) return;
        if (patch.from !== this.seq + 1) return this.resync();
        this.seq = patch.seq;
      }
      for (const row of patch.rows || []) {
        const place = this.rows.findIndex((r) => r.id === row.id);
        if (place < 0) continue;
        this.rows[place] = row;
        this.fresh[row.id] = true;
        setTimeout(() => { delete this.fresh[row.id]; }, 1600);
      }
      for (const line of patch.feed || []) {
        const place = this.feed.findIndex((l) => l.id === line.id);
        if (place >= 0) this.feed[place] = line; else this.feed.unshift(line);
      }
      if (this.feed.length > MAX_FEED) this.feed.length = MAX_FEED;
    },
    undoable(undo) { this.undo = undo; },  // {last: id of the act that would be taken back, label}
    say(said) { this.said = said; },
    // -- to the server
    act(what) { this.$emit("act", {...what, seen: this.seq, id: newId()}); },
    takeBack() {
      if (this.undo.last) this.act({type: "undo", last: this.undo.last});
      this.undo = {last: null, label: ""};  // until the server says what comes next: a double click takes back one
    },
    mark(r, status, minutes) {
      const again = r.id + status, now = performance.now();
      if (this.sent && this.sent.again === again && now - this.sent.at < 500) return;  // a double click is one
      this.sent = {again, at: now};
      this.act({type: "mark", status, minutes: status === "late" && minutes ? minutes : null, items: [{id: newId(), student: r.id}]});
    },
    onKey(event, r) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const key = event.key, status = STATUSES.find(([, letter]) => letter === key.toUpperCase());
      if (status && this.mayMark) this.mark(r, status[0]);
      else if (key === "ArrowDown" || key === "ArrowUp") {
        const next = key === "ArrowDown" ? event.target.nextElementSibling : event.target.previousElementSibling;
        if (next) next.focus();
      } else return;
      event.preventDefault();
    },
    ask(what) { this.asked = what; this.reason = ""; this.$refs.dialog.showModal(); },
    confirm() {
      const asked = this.asked;
      if (asked === "rest") this.act({type: "mark", bulk: true, status: "present", minutes: null, items: this.unmarked.map((r) => ({id: newId(), student: r.id}))});
      if (asked === "close") this.act({type: "close"});
      if (asked === "reopen") {
        if (!this.reason.trim()) return;
        this.act({type: "reopen", reason: this.reason.trim()});
      }
      this.$refs.dialog.close();
    },
    // -- in words
    count(status) { return this.rows.filter((r) => r.status === status).length; },
    letterOf(r) { return LETTERS[r.status] || "–"; },
    wordOf(r) { return r.status ? WORDS[r.status] + (r.status === "late" && r.minutes ? " " + r.minutes + " min" : "") : "Not marked"; },
    clock(ms) { return new Intl.DateTimeFormat([], {hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZone: this.zone}).format(ms); },
    how(r) {
      if (!r.status) return "";
      return [r.by ? "by " + r.by : r.via, r.atMs && r.via !== "at close" ? this.clock(r.atMs) : "", r.remark].filter(Boolean).join(" · ");
    },
    rival(r) {
      const p = r.proposal, word = WORDS[p.status].toLowerCase();
      const said = r.by ? r.by + " marked " : "Marked ";
      return said + this.wordOf(r).toLowerCase() + "; " + (p.by ? p.by + " marked " + word : "a check-in by " + p.via + " at " + this.clock(p.atMs) + " gives " + word) + ".";
    },
  },
};
