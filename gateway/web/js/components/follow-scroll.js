// A scroller that follows its growing content while the reader is at the end, and stays in place once the reader scrolls up.

/** The distance from the end that still counts as the end, in pixels: scroll positions are fractions on some screens. */
const END_TOLERANCE = 4;

export class FollowScroll {
  /** `onchange` is called after each change of the position or of the size of the content. */
  constructor(scroller, content, onchange) {
    this.scroller = scroller;
    this.onchange = onchange;
    this.isFollowing = true;
    this.lastTop = 0;
    scroller.addEventListener("scroll", () => this.#onScroll());
    // Sizes are observed after drawing, which may come later than the change of the text.
    this.observer = new ResizeObserver(() => this.#onResize());
    this.observer.observe(scroller);
    this.observer.observe(content);
  }

  destroy() {
    this.observer.disconnect();
  }

  /** Goes to the end, and follows from there. */
  toEnd({ smooth = false } = {}) {
    this.isFollowing = true;
    this.scroller.scrollTo({ top: this.scroller.scrollHeight, behavior: smooth ? "smooth" : "instant" });
    // The event of this scroll may come together with that of the reader's own, so the position is noted at once.
    if (!smooth) this.lastTop = this.scroller.scrollTop;
  }

  /** Stops following: the content above is about to change. */
  stay() {
    this.isFollowing = false;
  }

  isAtEnd() {
    return this.scroller.scrollHeight - this.scroller.scrollTop - this.scroller.clientHeight <= END_TOLERANCE;
  }

  #onScroll() {
    const { scrollTop } = this.scroller;
    if (this.isAtEnd()) this.isFollowing = true;
    else if (scrollTop < this.lastTop) this.isFollowing = false;
    this.lastTop = scrollTop;
    this.onchange();
  }

  #onResize() {
    if (this.isFollowing && !this.isAtEnd()) this.toEnd();
    this.onchange();
  }
}
