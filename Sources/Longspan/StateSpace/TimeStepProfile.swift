import Glibc
import LongspanKernels

/// The time steps of one channel or head over a calibration window, largest first, and what LongMamba takes from them
/// (Ye et al. 2025, section 4.2).
struct TimeStepProfile {
  /// Clamped, in descending order.
  let steps: [Float]

  /// Sorts the steps of a window and lowers all to the largest but `clamp` of their number.
  ///
  /// - Parameter clamp: the share C of the steps that are lowered to the smallest of them; the k-th largest step is the
  ///   greatest that is left, k = max(1, trunc(n * C)).
  init(_ window: [Float], clamp: Double) {
    var sorted = window.sorted(by: >)
    if !sorted.isEmpty {
      let place = max(1, Int(Double(sorted.count) * clamp)) - 1
      for index in 0..<place { sorted[index] = sorted[place] }
    }
    steps = sorted
  }

  init(sorted steps: [Float]) {
    self.steps = steps
  }

  /// The window's sum of steps: how far the state decays in it, but for the factor A.
  var decay: Double { steps.reduce(0) { $0 + Double($1) } }

  /// The step up to which tokens are dropped of a text of `length` tokens, so that those above it decay the state about as
  /// far as the window did.
  ///
  /// The sorted steps are stretched to `length` points by linear interpolation with half-pixel centres; the threshold is the
  /// point after the first one with which their running sum exceeds the window's. 0, which drops nothing that has a step,
  /// for a length up to the window's, and where the sum never exceeds it or does so at the last point.
  func threshold(length: Int) -> Float {
    guard length > steps.count, !steps.isEmpty else { return 0 }
    let bound = decay
    var sum = 0.0
    for index in 0..<length {
      sum += stretched(index, to: length)
      if sum > bound {
        return index + 1 < length ? Float(stretched(index + 1, to: length)) : 0
      }
    }
    return 0
  }

  private func stretched(_ index: Int, to length: Int) -> Double {
    let source = max(0, (Double(index) + 0.5) * Double(steps.count) / Double(length) - 0.5)
    let lower = Int(source)
    let upper = min(lower + 1, steps.count - 1)
    let share = source - Double(lower)
    return Double(steps[lower]) + share * (Double(steps[upper]) - Double(steps[lower]))
  }
}

/// log of the product over a window's steps of the mean over the states of exp(step * A): how much of a state is left at the
/// window's end (Ye et al. 2025, section 4.1). A head of Mamba-2 has one A, a channel of Mamba one for each state.
func logReceptiveProduct(steps: [Float], decays: some Collection<Float>) -> Double {
  guard decays.count > 1 else {
    let sum = steps.reduce(0) { $0 + Double($1) }
    return sum * Double(decays.first ?? 0)
  }
  let rates = decays.map(Double.init)
  // the slowest state is taken out, so that the mean does not vanish where every state decays far in one step
  let slowest = rates.max() ?? 0
  return steps.reduce(0) { total, step in
    let mean = rates.reduce(0) { $0 + exp(Double(step) * ($1 - slowest)) } / Double(rates.count)
    return total + Double(step) * slowest + log(mean)
  }
}
