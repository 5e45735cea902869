import Longspan
import LongspanKernels

/// The logits of a pass over the text's last token and a draft after it, from which tokens are drawn one by one.
///
/// Its rows are drawn from in order, for as long as the token drawn from one is the one drafted to follow it. So a token is
/// drawn only when it is asked for, and with the same logits and the same state of the sampler as without drafts.
struct DraftRun: ~Copyable {
  /// `[1 + drafted tokens, vocabulary]`; empty if there is nothing to draw from.
  var logits = AlignedBuffer<Float>()
  /// Whether the pass was over a token that had been drawn, rather than a prompt.
  let isCheck: Bool
  /// Tokens of the text that the sequence had read with the first row's.
  private let textCount: Int
  private let rows: Int
  /// Tokens that the sequence has read beyond the text, or had before they were accepted; empty once a token was drawn that
  /// was not drafted, and they were taken back.
  private(set) var draft: [Int32]
  /// Drafted tokens that were accepted: the row that the next token is drawn from.
  private(set) var row = 0

  /// A run without logits yet.
  init(draft: [Int32] = [], after textCount: Int, isCheck: Bool = false) {
    self.draft = draft
    self.textCount = textCount
    self.isCheck = isCheck
    rows = draft.count + 1
  }

  /// Draws the next token.
  func draw(_ sampler: inout Sampler) throws(LongspanError) -> Int32 {
    guard logits.count > 0 else {
      throw LongspanError(.invalidText, "there is nothing to draw a token from: read a prompt first")
    }
    let width = logits.count / rows
    return try sampler.sample(logits.span.extracting(row * width..<(row + 1) * width))
  }

  /// Whether a token is the one that was drafted to come next.
  func drafted(_ token: Int32) -> Bool { row < draft.count && draft[row] == token }

  /// Goes on to the row after the drafted token.
  mutating func accept() { row += 1 }

  /// Ends the run: has the sequence forget the drafted tokens that are not text.
  mutating func close(_ sequence: any ModelSequence) throws(LongspanError) {
    if row < draft.count { try sequence.truncate(to: textCount + row) }
    draft = []
  }

  /// Ends the run where tokens were accepted and none was drawn since, and has the sequence forget the last of those as well.
  ///
  /// - Returns: that token, if there is one.
  mutating func reopen(_ sequence: any ModelSequence) throws(LongspanError) -> Int32? {
    guard row > 0, row <= draft.count else {
      try close(sequence)
      return nil
    }
    let last = draft[row - 1]
    try sequence.truncate(to: textCount + row - 1)
    draft = []
    return last
  }
}
