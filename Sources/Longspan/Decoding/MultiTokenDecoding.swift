import LongspanKernels

/// Direct multi-token decoding (DMTD, arXiv 2510.11958): a schedule by which a model's middle layers run once for several
/// tokens, so that their weights are read once a cycle.
///
/// The layers are in three groups (``LayerGroups``): early E, thinking T and late D. Of every `cycle` tokens tau, the first is
/// a head. With x_i the token at position i, the model is trained on
///
/// ```
/// e_i = E(embed(x))_i        t_i = T(e)_i
/// m_i = 1 at heads, 0 elsewhere
/// logits_i = LMhead(norm(D(e + m t)_i))
/// ```
///
/// with causal attention in every layer. The head's t is the residual stream as the thinking layers leave it, before any norm;
/// as that stream carries e already, a head's late input holds e twice. Without early layers e is the embedding. The other
/// tokens of a cycle reach t of their head only by attention in the late layers, so the thinking layers need not have read
/// them yet: that is made up for at the next head, in one pass over the tokens skipped and the head (cyclical refilling).
/// Every layer reads every token exactly once, in its order and at its true position.
///
/// The output is not that of the model without the schedule: a model must be trained for it, with this cycle, these groups and
/// this phase. Which phase a checkpoint was trained with is for its authors to say; a wrong one degrades the text without any
/// other sign.
public struct MultiTokenDecoding: Sendable, Equatable, CustomStringConvertible {
  /// Where cycles start, and how prompts are read.
  public enum Phase: String, Sendable, CaseIterable {
    /// After each prompt: the first token that is generated is always a head. The prompt itself is read by an ordinary pass
    /// through all layers: the late layers' input is t_i at every position of it, without e_i added. A text that is read
    /// without a prompt starts with a head.
    case prompt
    /// At the text's beginning: heads are the positions i with i mod tau = 0, of the prompt too, which is read by the
    /// training formula. Several prompts do not disturb the phase.
    case absolute
  }

  /// Tokens of a cycle, tau.
  public let cycle: Int
  /// Layers of the late group, D.
  public let lateLayers: Int
  /// Layers of the early group, E.
  public let earlyLayers: Int
  /// Which tokens of a cycle run every layer.
  public let phase: Phase

  /// - Throws: ``/LongspanKernels/LongspanError`` naming the parameter that is out of range: a cycle of at least 1
  ///   token, at least 1 late layer and no negative number of early layers.
  public init(
    cycle: Int, lateLayers: Int, earlyLayers: Int = 0, phase: Phase = .prompt
  ) throws(LongspanError) {
    func refuse(_ what: String) -> LongspanError { LongspanError(.invalidArgument, "dmtd: \(what)") }
    guard cycle >= 1, cycle <= 1 << 30 else {
      throw refuse("cycle \(cycle) is out of range, which is 1 to 2^30 tokens")
    }
    guard lateLayers >= 1 else { throw refuse("late \(lateLayers): at least 1 layer must be late") }
    guard earlyLayers >= 0 else { throw refuse("early \(earlyLayers) is below 0 layers") }
    self.cycle = cycle
    self.lateLayers = lateLayers
    self.earlyLayers = earlyLayers
    self.phase = phase
  }

  /// As `--decode` takes it.
  public var description: String {
    "dmtd:cycle=\(cycle),late=\(lateLayers),early=\(earlyLayers),phase=\(phase.rawValue)"
  }

  /// The groups of a model with `layers` layers.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` if it has fewer than the late and early layers together.
  public func layerGroups(of layers: Int) throws(LongspanError) -> LayerGroups {
    guard lateLayers <= layers else {
      throw LongspanError(
        .invalidArgument, "dmtd: late \(lateLayers) is more than the model's \(layers) layers")
    }
    guard earlyLayers <= layers - lateLayers else {
      throw LongspanError(
        .invalidArgument,
        "dmtd: early \(earlyLayers) and late \(lateLayers) together are more than the model's \(layers) layers"
      )
    }
    let late = layers - lateLayers
    return LayerGroups(early: 0..<earlyLayers, thinking: earlyLayers..<late, late: late..<layers)
  }

  /// Whether a position is a head, in cycles of which one starts at position `origin`.
  public func isHead(_ position: Int, origin: Int = 0) -> Bool { (position - origin) % cycle == 0 }
}
