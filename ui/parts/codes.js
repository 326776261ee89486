// What a class checks in with: the rotating QR, the six digits, and how long they still hold by the server's clock.
// A code that nothing has followed for so long after its end is shown as one that no longer holds.
const LATE_MS = 4000;

export default {
  props: { initial: Object, big: Boolean },
  template: `
<div class="c" :class="{'c-big': big, 'c-stale': isStale}">
  <div class="c-qr" data-testid="qr" :data-url="codes.url" v-html="codes.svg" role="img" aria-label="QR code to check in"></div>
  <div class="c-text">
    <p class="c-where m-soft">Scan, or open <b>{{ codes.host }}</b> and type</p>
    <p class="c-code m-num" data-testid="code" :aria-label="'Code ' + codes.code.split('').join(' ')">{{ codes.code.slice(0, 3) }}<i></i>{{ codes.code.slice(3) }}</p>
    <div class="c-ring" role="timer" :aria-label="'New code every ' + codes.step + ' seconds'" aria-live="off">
      <svg viewBox="0 0 36 36" aria-hidden="true"><circle cx="18" cy="18" r="15.5"/><circle :key="codes.url" class="c-left" cx="18" cy="18" r="15.5" pathLength="100" :style="{animationDuration: codes.step + 's', animationDelay: delay + 's'}"/></svg>
      <span class="m-soft m-small">{{ isStale ? "Waiting for a new code" : "changes by itself" }}</span>
    </div>
  </div>
  <slot></slot>
</div>`,
  data() { return { codes: this.initial, delay: 0, isStale: false }; },
  created() { this.show(this.initial); },
  unmounted() { clearTimeout(this.timer); },
  methods: {
    show(codes) {
      const left = Math.max(0, codes.expiresMs - codes.nowMs);
      this.delay = left / 1000 - codes.step;
      this.codes = codes;
      this.isStale = false;
      clearTimeout(this.timer);
      this.timer = setTimeout(() => { this.isStale = true; }, left + LATE_MS);
    },
  },
};
