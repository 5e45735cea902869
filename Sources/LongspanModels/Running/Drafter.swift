import Longspan
import LongspanKernels

/// Proposes the tokens that may follow a text, for a ``Generator`` to have the model check them in one pass.
///
/// A drafter decides only how fast text comes, never which: a generator draws the same tokens with any drafter and without.
public protocol Drafter {
  /// Throws, naming what stands against it, if it cannot draft for a sequence.
  func check(_ sequence: any ModelSequence) throws(LongspanError)

  /// The text goes on with these tokens.
  mutating func append(_ tokens: [Int32])

  /// The tokens that may come next, at most `limit`; none is an answer too.
  ///
  /// - Parameters:
  ///   - token: the text's last, which `sequence` has not read yet.
  ///   - sequence: has read the rest of the text, and has that text again when this returns or throws.
  mutating func draft(
    after token: Int32, limit: Int, for sequence: any ModelSequence, workspace: inout Workspace
  ) throws(LongspanError) -> [Int32]
}

/// A sequence whose model drafts for itself.
public protocol SelfDraftingSequence: ModelSequence {
  /// The tokens that may come next, at most `limit`. What was read stays as it is.
  ///
  /// - Parameter token: the text's last, which was not read yet. If the next ``ModelSequence/read(_:workspace:)`` begins with
  ///   it, what was computed for it is used.
  func draft(
    after token: Int32, limit: Int, workspace: inout Workspace
  ) throws(LongspanError) -> [Int32]
}

/// Drafts from the text itself; see ``/Longspan/PromptLookupDrafting``.
public struct PromptLookupDrafter: Drafter {
  /// How it drafts.
  public let drafting: PromptLookupDrafting
  private var index: NGramIndex

  /// A drafter for one text.
  public init(_ drafting: PromptLookupDrafting) {
    self.drafting = drafting
    index = NGramIndex(lengths: drafting.least...drafting.ngram)
  }

  public func check(_ sequence: any ModelSequence) throws(LongspanError) {}

  public mutating func append(_ tokens: [Int32]) {
    for token in tokens { index.append(token) }
  }

  public func draft(
    after token: Int32, limit: Int, for sequence: any ModelSequence, workspace: inout Workspace
  ) throws(LongspanError) -> [Int32] {
    index.continuation(limit: min(limit, drafting.draft))
  }
}

/// Has the sequence draft; see ``/Longspan/SelfSpeculativeDrafting``.
public struct SelfSpeculativeDrafter: Drafter {
  /// A drafter; the sequence has the options.
  public init() {}

  public func check(_ sequence: any ModelSequence) throws(LongspanError) { _ = try drafting(sequence) }

  public func append(_ tokens: [Int32]) {}

  public func draft(
    after token: Int32, limit: Int, for sequence: any ModelSequence, workspace: inout Workspace
  ) throws(LongspanError) -> [Int32] {
    try drafting(sequence).draft(after: token, limit: limit, workspace: &workspace)
  }

  private func drafting(_ sequence: any ModelSequence) throws(LongspanError) -> any SelfDraftingSequence {
    guard let drafting = sequence as? any SelfDraftingSequence else {
      throw LongspanError(
        .unsupported, "the sequence was not made for self-speculative drafting: ask for it in its options")
    }
    return drafting
  }
}

extension DecodingMethod {
  /// What proposes tokens to a ``Generator``, for methods that draft.
  public func makeDrafter() -> (any Drafter)? {
    switch self {
    case .plain, .multiToken: nil
    case .selfSpeculative: SelfSpeculativeDrafter()
    case .promptLookup(let drafting): PromptLookupDrafter(drafting)
    }
  }
}

extension SequenceOptions {
  /// Asks for what a decoding method needs of a sequence.
  public mutating func prepare(for method: DecodingMethod) {
    switch method {
    case .plain, .promptLookup: break
    case .multiToken(let schedule): decoding = schedule
    case .selfSpeculative(let drafting): self.drafting = drafting
    }
  }
}
