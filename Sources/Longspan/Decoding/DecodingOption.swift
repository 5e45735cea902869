import LongspanKernels

/// Reads decoding methods as people write them: a name, and after a colon parameters `key=value` between commas.
///
/// `plain`; `dmtd:cycle=4,late=8,early=0,phase=prompt`; `selfspec:cycle=4,late=8,early=0`; `lookup:ngram=3,least=2,draft=7`.
/// Parameters left out have the defaults given here, which for `dmtd` are those of the published checkpoints.
public enum DecodingOption {
  /// What can be written where text is generated, for help texts.
  public static let help = """
    plain; lookup with ngram=3, least=2, draft=7 (drafts what followed the text's last 3 or 2 tokens before); selfspec with \
    cycle=4, late=8, early=0 (the model's late layers draft); \(multiTokenHelp). The text of lookup and selfspec is that of \
    plain, with any sampling options; that of dmtd is not
    """

  /// What can be written for direct multi-token decoding, and what it does, for help texts.
  public static let multiTokenHelp = """
    dmtd with cycle=4, late=8, early=0, phase=prompt|absolute (direct multi-token decoding, which changes the model's output \
    distribution and needs a model trained for it, with the same cycle, layers and phase)
    """

  /// - Throws: ``/LongspanKernels/LongspanError`` that names what is wrong and lists what exists.
  public static func method(_ text: String) throws(LongspanError) -> DecodingMethod {
    let (name, rest) = OptionParameters.split(text, at: ":")
    switch name {
    case "plain":
      guard rest == nil else { throw LongspanError(.invalidArgument, "plain: has no parameters") }
      return .plain
    case "dmtd": return .multiToken(try multiToken(OptionParameters(name, rest)))
    case "selfspec": return .selfSpeculative(try selfSpeculative(OptionParameters(name, rest)))
    case "lookup": return .promptLookup(try promptLookup(OptionParameters(name, rest)))
    default:
      throw LongspanError(
        .invalidArgument,
        "no decoding method is named '\(name)'; there are plain, dmtd, selfspec, lookup")
    }
  }

  private static func multiToken(_ given: OptionParameters) throws(LongspanError) -> MultiTokenDecoding {
    try given.check(["cycle", "late", "early", "phase"])
    return try MultiTokenDecoding(
      cycle: number(given, "cycle", 4), lateLayers: number(given, "late", 8),
      earlyLayers: number(given, "early", 0),
      phase: given.value("phase", .prompt, OptionParameters.oneOf(MultiTokenDecoding.Phase.self)) {
        .init(rawValue: $0)
      })
  }

  private static func selfSpeculative(
    _ given: OptionParameters
  ) throws(LongspanError) -> SelfSpeculativeDrafting {
    try given.check(["cycle", "late", "early"])
    return try SelfSpeculativeDrafting(
      cycle: number(given, "cycle", 4), lateLayers: number(given, "late", 8),
      earlyLayers: number(given, "early", 0))
  }

  private static func promptLookup(_ given: OptionParameters) throws(LongspanError) -> PromptLookupDrafting {
    try given.check(["ngram", "least", "draft"])
    let ngram = try number(given, "ngram", 3)
    return try PromptLookupDrafting(
      ngram: ngram, least: number(given, "least", max(1, min(2, ngram))), draft: number(given, "draft", 7))
  }

  private static func number(
    _ given: OptionParameters, _ key: String, _ fallback: Int
  ) throws(LongspanError) -> Int {
    try given.value(key, fallback, "a whole number", Int.init)
  }
}
