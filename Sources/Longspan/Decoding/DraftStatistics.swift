/// How much of what was drafted the full model agreed with.
///
/// The token that is drawn first after a prompt comes from the prompt's own pass and is not counted.
public struct DraftStatistics: Sendable, Equatable {
  /// Passes of the full model, each over the token that was drawn last and the draft after it, if there was one.
  public private(set) var passes = 0
  /// Tokens drawn from these passes' logits, with the stop token.
  public private(set) var tokens = 0
  /// Tokens proposed, by place in their draft.
  public private(set) var draftedByPosition: [Int] = []
  /// Those that the model drew as well and that became text, by place in their draft.
  public private(set) var acceptedByPosition: [Int] = []

  /// Counts of nothing.
  public init() {}

  /// Tokens proposed.
  public var drafted: Int { draftedByPosition.reduce(0, +) }
  /// Tokens that were proposed and became text.
  public var accepted: Int { acceptedByPosition.reduce(0, +) }
  /// Share of the proposed tokens that were accepted; 0 if none was proposed.
  public var acceptanceRate: Double { drafted > 0 ? Double(accepted) / Double(drafted) : 0 }
  /// Accepted tokens by pass; 0 without a pass.
  public var meanAccepted: Double { passes > 0 ? Double(accepted) / Double(passes) : 0 }
  /// Tokens drawn by pass, 1 for ordinary decoding; 0 without a pass.
  public var tokensPerPass: Double { passes > 0 ? Double(tokens) / Double(passes) : 0 }

  /// Counts a pass over a draft of this many tokens.
  package mutating func addPass(drafted: Int) {
    passes += 1
    while draftedByPosition.count < drafted {
      draftedByPosition.append(0)
      acceptedByPosition.append(0)
    }
    for position in 0..<drafted { draftedByPosition[position] += 1 }
  }

  /// Counts a token drawn from the logits of a pass.
  ///
  /// - Parameter position: its place in the draft, if it was accepted from there.
  package mutating func addToken(acceptedAt position: Int?) {
    tokens += 1
    if let position { acceptedByPosition[position] += 1 }
  }
}
