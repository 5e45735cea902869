/// How the tokens after a prompt are computed.
public enum DecodingMethod: Sendable, Equatable, CustomStringConvertible {
  /// Every token by a pass of all layers.
  case plain
  /// Direct multi-token decoding, which changes what is drawn.
  case multiToken(MultiTokenDecoding)
  /// Drafts of the model's own late layers, which the model checks.
  case selfSpeculative(SelfSpeculativeDrafting)
  /// Drafts from the text itself, which the model checks.
  case promptLookup(PromptLookupDrafting)

  /// As `--decode` takes it.
  public var description: String {
    switch self {
    case .plain: "plain"
    case .multiToken(let decoding): decoding.description
    case .selfSpeculative(let drafting): drafting.description
    case .promptLookup(let drafting): drafting.description
    }
  }
}
