import LongspanKernels

/// Drafts by looking the text's end up in the text itself (Saxena 2023, "Prompt Lookup Decoding",
/// https://github.com/apoorvumang/prompt-lookup-decoding): what followed the latest earlier occurrence of its longest n-gram
/// is proposed to follow again.
///
/// It costs no model, and gains where an answer repeats its prompt or itself: quotations, edited code, lists. Where a copy
/// reaches the text's end it goes on with its own beginning, so that a repetition of any period fills the draft.
///
/// A pass costs more the longer its draft is, so the defaults are careful. A draft of 7 makes a pass of 8 rows. The shortest
/// n-gram has 2 tokens: with those of 1 there is nearly always a draft, but of what it proposes less is accepted.
public struct PromptLookupDrafting: Sendable, Hashable, CustomStringConvertible {
  /// Tokens of the longest n-gram that is looked for, first.
  public let ngram: Int
  /// Tokens of the shortest.
  public let least: Int
  /// The most tokens to propose.
  public let draft: Int

  private static let longestNGram = 64
  private static let longestDraft = 256

  /// - Throws: ``/LongspanKernels/LongspanError`` naming the parameter that is out of range: n-grams of 1 to 64 tokens,
  ///   the shortest not above the longest, and drafts of 1 to 256.
  public init(ngram: Int = 3, least: Int = 2, draft: Int = 7) throws(LongspanError) {
    func refuse(_ what: String) -> LongspanError { LongspanError(.invalidArgument, "lookup: \(what)") }
    guard ngram >= 1, ngram <= Self.longestNGram else {
      throw refuse("ngram \(ngram) is out of range, which is 1 to \(Self.longestNGram)")
    }
    guard least >= 1, least <= ngram else {
      throw refuse("least \(least) is out of range, which is 1 to ngram, \(ngram)")
    }
    guard draft >= 1, draft <= Self.longestDraft else {
      throw refuse("draft \(draft) is out of range, which is 1 to \(Self.longestDraft)")
    }
    self.ngram = ngram
    self.least = least
    self.draft = draft
  }

  /// As `--decode` takes it.
  public var description: String { "lookup:ngram=\(ngram),least=\(least),draft=\(draft)" }
}
