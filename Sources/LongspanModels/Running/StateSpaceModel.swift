import Longspan
import LongspanKernels

/// A language model of state-space layers, whose time steps can be looked at and filtered.
public protocol StateSpaceModel: LanguageModel {
  /// Layers and time steps of the model.
  var stateSpaceShape: StateSpaceShape { get }

  /// A of a layer, `[channels, states]`, with one state a head for Mamba-2; none above 0.
  func decays(layer: Int) -> [Float]

  /// Reads tokens at once as a text of their own, without a filter.
  ///
  /// - Parameter observe: sees the time steps of each layer in turn, `[T, channels]`, as the scan uses them.
  func observeTimeSteps(
    of tokens: [Int32], workspace: inout Workspace,
    _ observe: (Int, Span<Float>) throws(LongspanError) -> Void
  ) throws(LongspanError)
}
