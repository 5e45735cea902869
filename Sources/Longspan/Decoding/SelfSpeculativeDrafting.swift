import LongspanKernels

/// Drafts with the model's own late layers, by the schedule of direct multi-token decoding (DMTD, arXiv 2510.11958): early
/// and middle layers run once for the token that was drawn last, and the late layers draft `cycle` tokens from that.
///
/// With x_n the token drawn last, E its early output (the embedding where there are no early layers) and T that of the middle
/// layers, the late layers' input is E(x_n) + T(x_n) for the first drafted token and E(d_i) for the one after drafted token
/// d_i; each is the likeliest. The full model then checks all of them in one pass, so that the text is the one of ordinary
/// decoding whatever the drafts are worth: that depends on whether the model was trained for DMTD.
public struct SelfSpeculativeDrafting: Sendable, Hashable, CustomStringConvertible {
  /// Tokens of a draft, tau.
  public let cycle: Int
  /// Layers of the late group, D.
  public let lateLayers: Int
  /// Layers of the early group, E.
  public let earlyLayers: Int

  private static let longestDraft = 256

  /// - Throws: ``/LongspanKernels/LongspanError`` naming the parameter that is out of range: a cycle of 1 to 256
  ///   tokens, at least 1 late layer and no negative number of early layers.
  public init(cycle: Int = 4, lateLayers: Int = 8, earlyLayers: Int = 0) throws(LongspanError) {
    func refuse(_ what: String) -> LongspanError { LongspanError(.invalidArgument, "selfspec: \(what)") }
    guard cycle >= 1, cycle <= Self.longestDraft else {
      throw refuse("cycle \(cycle) is out of range, which is 1 to \(Self.longestDraft) tokens")
    }
    guard lateLayers >= 1 else { throw refuse("late \(lateLayers): at least 1 layer must be late") }
    guard earlyLayers >= 0 else { throw refuse("early \(earlyLayers) is below 0 layers") }
    self.cycle = cycle
    self.lateLayers = lateLayers
    self.earlyLayers = earlyLayers
  }

  /// As `--decode` takes it.
  public var description: String { "selfspec:cycle=\(cycle),late=\(lateLayers),early=\(earlyLayers)" }

  /// The groups of a model with `layers` layers.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` if no layer would be left for the thinking group, so that a draft
  ///   would cost as much as what it drafts.
  public func layerGroups(of layers: Int) throws(LongspanError) -> LayerGroups {
    let (outer, overflow) = earlyLayers.addingReportingOverflow(lateLayers)
    guard !overflow, outer < layers else {
      throw LongspanError(
        .invalidArgument,
        "selfspec: early \(earlyLayers) and late \(lateLayers) leave none of the model's \(layers) layers to skip"
      )
    }
    let late = layers - lateLayers
    return LayerGroups(early: 0..<earlyLayers, thinking: earlyLayers..<late, late: late..<layers)
  }
}
